package agent

import (
	"errors"
	"fmt"
	"net/http"
	"path/filepath"

	"berth/api"
	"berth/secrets"
	"berth/spec"
	"berth/store"
)

// nameDamaged says of an error about a damaged content which secret or config
// that is, and how to have it whole again. The secrets store knows its digest
// only.
func (a *Agent) nameDamaged(err error) error {
	var d *secrets.DamagedError
	if !errors.As(err, &d) {
		return err
	}
	file := filepath.Join(a.cfg.Root, "secrets", "content", d.Digest+".age")
	what, again := a.contentOf(d.Digest)
	return &api.Error{
		Status: http.StatusInternalServerError, Code: api.CodeInternal,
		Detail: fmt.Sprintf("%s can't be read: %s is %v", what, file, secrets.ErrDamaged),
		Hint:   "put that file back from a backup, or " + again,
	}
}

// contentOf says what has a digest, and how its value is stored again.
func (a *Agent) contentOf(digest string) (what, again string) {
	what, again = "a content that nothing uses", "remove it"
	err := a.db.View(func(tx store.Tx) error {
		err := store.Each(tx, store.Revisions, "", func(_ string, r store.Revision) error {
			for kind, files := range map[string]map[string]spec.File{api.KindSecret: r.Stack.Secrets, api.KindConfig: r.Stack.Configs} {
				for key, f := range files {
					if f.Digest == digest {
						what = fmt.Sprintf("%s %s of %s, revision %d,", kind, key, r.Stack.Name, r.Number)
						again = "bring the stack up with a file that has its value"
					}
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		return store.Each(tx, store.Contents, "", func(_ string, c store.Content) error {
			for _, v := range c.Versions {
				if v.Digest == digest {
					what = fmt.Sprintf("%s %s, version %d,", c.Kind, c.Name, v.Number)
					again = fmt.Sprintf("store its value again: berth %s set %s%s", command(c.Kind), scopeFlag(c.Stack), c.Name)
				}
			}
			return nil
		})
	})
	if err != nil {
		a.log.Error("find what has a damaged content", "err", err)
	}
	return what, again
}

// scopeFlag is what the command line needs to find a content.
func scopeFlag(stack string) string {
	if stack == "" {
		return "--global "
	}
	return "-p " + stack + " "
}
