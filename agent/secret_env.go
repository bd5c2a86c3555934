package agent

import (
	"bytes"
	"fmt"
	"slices"

	"berth/runtime"
	"berth/secrets"
	"berth/spec"
)

// maxVariable is what Linux takes as one entry of an environment, with its
// name and the zero byte behind it (MAX_ARG_STRLEN).
const maxVariable = 128 << 10

// envName is the name of a task's variables in its delivery.
const envName = "env"

// variable gives the value that a content has as a variable: without a newline
// at its end, which most editors put there.
func variable(name string, content []byte) ([]byte, error) {
	value := withoutNewline(content)
	if i := bytes.IndexByte(value, 0); i >= 0 {
		return nil, fmt.Errorf("byte %d is NUL, and no variable can hold one; let the program read the file", i+1)
	}
	if most := maxVariable - len(name) - len("=\x00"); len(value) > most {
		return nil, fmt.Errorf("it has %d bytes, and a variable can have %d; let the program read the file", len(value), most)
	}
	return value, nil
}

// variables makes the file of the contents that are variables too (x-env), for
// the user of c alone; nil: there are none.
func (a *Agent) variables(c *runtime.Container, s *spec.Service, all []delivery) (*secrets.File, error) {
	var entries []byte
	for _, d := range all {
		if _, given := s.Environment[d.mount.Env]; d.mount.Env == "" || given {
			continue // given: to a one-off task, whose caller knows better
		}
		content := d.file.Content
		if content == nil {
			var err error
			if content, err = a.secrets.Get(d.file.Digest); err != nil {
				return nil, err
			}
		}
		value, err := variable(d.mount.Env, content)
		if err != nil {
			return nil, fmt.Errorf("%s as variable %s: %w", d.subject(), d.mount.Env, err)
		}
		entries = append(slices.Concat(entries, []byte(d.mount.Env+"="), value), 0)
	}
	if entries == nil {
		return nil, nil
	}
	uid, gid, err := runtime.LookupUser(c.Rootfs, c.User)
	if err != nil {
		return nil, err
	}
	return &secrets.File{Content: entries, Name: envName, UID: uid, GID: gid, Mode: 0o400}, nil
}
