package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/hashicorp/go-multierror"
	"golang.org/x/sync/errgroup"

	"berth/api"
	"berth/secrets"
	"berth/spec"
)

// Contents that only the agent can have: of files that are encrypted, and of
// providers. A plan asks for them as an apply does, so it tells the truth.

const (
	maxSources = 4 // that are asked at once
	// providerTimeout bounds what a request may ask for; spec has the same.
	providerTimeout = time.Minute
	// slowSource is when a user would like to know what is waited for.
	slowSource = time.Second
)

// fetchContents are the plain contents, by key, of those files that do not
// carry them. All failures are reported together.
func (a *Agent) fetchContents(ctx context.Context, st *spec.Stack, kind string, files map[string]spec.File, report func(api.Progress)) (map[string][]byte, error) {
	var mu sync.Mutex
	out, failed := map[string][]byte{}, map[string]error{}
	var g errgroup.Group
	g.SetLimit(maxSources)
	for _, key := range sortedKeys(files) {
		f := files[key]
		if f.Digest != "" || f.External || f.Encrypted == "" && f.Provider == nil {
			continue
		}
		g.Go(func() error {
			stop := afterWhile(func() { report(api.Progress{Message: fmt.Sprintf("%s %s: waiting for %s", kind, key, sourceOf(f))}) })
			content, err := a.fetchContent(ctx, st, kind, key, f)
			stop()
			mu.Lock()
			defer mu.Unlock()
			out[key], failed[key] = content, err
			return nil
		})
	}
	_ = g.Wait() // they note their errors themselves
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	var errs *multierror.Error
	for _, key := range sortedKeys(failed) {
		if failed[key] != nil {
			errs = multierror.Append(errs, failed[key])
		}
	}
	return out, errs.ErrorOrNil()
}

// afterWhile calls f after a second, unless it is stopped before; f is not
// running any more then.
func afterWhile(f func()) (stop func()) {
	var wg sync.WaitGroup
	ended := make(chan struct{})
	wg.Go(func() {
		select {
		case <-ended:
		case <-time.After(slowSource):
			f()
		}
	})
	return func() {
		close(ended)
		wg.Wait()
	}
}

func sourceOf(f spec.File) string {
	if f.Provider != nil {
		return "provider " + f.Provider.Command
	}
	return "its file to be decrypted"
}

func (a *Agent) fetchContent(ctx context.Context, st *spec.Stack, kind, key string, f spec.File) (content []byte, err error) {
	limit := maxSecret
	if kind == api.KindConfig {
		limit = maxConfig
	}
	at := kind + "s." + key
	if f.Provider != nil {
		at += ".x-provider"
		if f.Provider.Timeout <= 0 || f.Provider.Timeout > providerTimeout {
			return nil, placed(st, at, invalid("%s %s: the provider's timeout is %s; at most %s", kind, key, f.Provider.Timeout, providerTimeout))
		}
		content, err = a.secrets.Ask(ctx, secrets.Question{
			Command: f.Provider.Command, Args: f.Provider.Args, Timeout: f.Provider.Timeout, Limit: limit,
			Env: []string{"BERTH_STACK=" + st.Name, "BERTH_KIND=" + kind, "BERTH_KEY=" + key},
		})
	} else {
		at += ".file"
		content, err = a.secrets.Decrypt(ctx, f.Encrypted, f.Content, limit)
	}
	if err == nil {
		return content, nil
	}
	what := &api.Error{Status: http.StatusUnprocessableEntity, Code: api.CodeInvalid, Detail: fmt.Sprintf("%s %s: %v", kind, key, err)}
	var source *secrets.SourceError
	if errors.As(err, &source) {
		what.Hint = source.Hint
	}
	return nil, placed(st, at, what)
}

// recipients are what files may be encrypted to for this host.
func (a *Agent) recipients() ([]api.ContentRecipient, error) {
	list, err := a.secrets.Recipients()
	if err != nil {
		return nil, err
	}
	out := []api.ContentRecipient{}
	for _, r := range list {
		out = append(out, api.ContentRecipient(r))
	}
	return out, nil
}
