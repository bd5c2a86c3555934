package agent

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"berth/crash"
	"berth/runtime"
	"berth/secrets"
	"berth/spec"
	"berth/store"
)

// delivery is one config or secret as a task has it.
type delivery struct {
	key   string // "configs.NAME" or "secrets.NAME"
	at    string // below the service: "secrets.0"
	mount spec.FileMount
	file  secrets.File
	// template says that file.Content is yet to be made of it (expand).
	template bool
}

// execution is the mount option for it: a config may be a script.
func (d *delivery) execution() string {
	if strings.HasPrefix(d.key, "configs.") {
		return "exec"
	}
	return "noexec"
}

// subject names it in a sentence.
func (d *delivery) subject() string {
	kind, name, _ := strings.Cut(d.key, "s.")
	return kind + " " + name
}

// deliveries are the configs, then the secrets of a service, with their
// contents in r. Their files are named by their place, which is part of the
// service's hash: it is the same for all revisions of a task.
func deliveries(s *spec.Service, r *store.Revision) ([]delivery, error) {
	var out []delivery
	add := func(kind string, mounts []spec.FileMount, all map[string]spec.File) error {
		for i, m := range mounts {
			uid, err := number(m.UID)
			if err != nil {
				return fmt.Errorf("%s.%s: uid %w", kind, m.Source, err)
			}
			gid, err := number(m.GID)
			if err != nil {
				return fmt.Errorf("%s.%s: gid %w", kind, m.Source, err)
			}
			out = append(out, delivery{
				key: kind + "." + m.Source, at: fmt.Sprintf("%s.%d", kind, i), mount: m, template: all[m.Source].Template,
				file: secrets.File{Digest: all[m.Source].Digest, Name: strconv.Itoa(len(out)), UID: uid, GID: gid, Mode: m.Mode},
			})
		}
		return nil
	}
	if err := add("configs", s.Configs, r.Stack.Configs); err != nil {
		return nil, err
	}
	if err := add("secrets", s.Secrets, r.Stack.Secrets); err != nil {
		return nil, err
	}
	return out, nil
}

// inPlaceContents are the digests of the contents of a service in r whose
// change does not replace its tasks (x-on-change).
func inPlaceContents(r *store.Revision, service string) map[string]string {
	s := r.Stack.Services[service]
	return spec.InPlaceIdentity(&s, identity(view{}, r, service))
}

// updateContents brings the contents that are changed in place to a running
// task: those with x-on-change signal are written into its files, then it gets
// each of their signals once; those with ignore wait for its successor. It
// returns what is in force then. What a crash leaves half done is done again:
// the caller notes it last.
func (a *Agent) updateContents(ctx context.Context, t *store.Task, r *store.Revision) (map[string]string, error) {
	want := inPlaceContents(r, t.Service)
	all, err := deliveries(&t.Spec, r)
	if err != nil {
		return nil, err
	}
	svc := r.Stack.Services[t.Service]
	var files []secrets.File
	signals := map[string]bool{}
	for _, d := range all {
		sig := d.mount.Signal()
		if digest, ok := want[d.key]; !ok || sig == "" || digest == t.Contents[d.key] {
			continue
		}
		if err := a.expand(&d, t, &svc, &r.Stack, a.secrets.Get); err != nil {
			return nil, fmt.Errorf("deliver the new contents of %s: %s: %w", t.Name(), d.subject(), err)
		}
		files = append(files, d.file)
		signals[sig] = true
	}
	if len(files) == 0 {
		return want, nil
	}
	if err := a.secrets.Rewrite(t.ID, files); err != nil {
		return nil, fmt.Errorf("deliver the new contents of %s: %w", t.Name(), a.nameDamaged(err))
	}
	crash.At("contents.written")
	for _, name := range sortedKeys(signals) {
		sig, err := runtime.ParseSignal(name)
		if err != nil {
			return nil, fmt.Errorf("x-on-change of %s: %w", t.Name(), err)
		}
		if err := a.signal(ctx, t, sig); err != nil {
			return nil, err
		}
		a.events.task(t, "kill", name)
	}
	return want, nil
}

// takeBack ends the delivery of a task that has exited: it never starts again.
// What a crash leaves of it is swept when the agent starts.
func (a *Agent) takeBack(t *store.Task) error {
	if len(t.Spec.Configs)+len(t.Spec.Secrets) == 0 {
		return nil
	}
	return a.secrets.Withdraw(t.ID)
}
