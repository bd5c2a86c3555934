package agent

import (
	"fmt"

	"github.com/hashicorp/go-multierror"

	"berth/spec"
	"berth/store"
)

// reader gives a content by its digest.
type reader func(digest string) ([]byte, error)

// checkContents finds contents that can't be delivered as it is asked for.
func (a *Agent) checkContents(r *store.Revision, read reader) error {
	var errs *multierror.Error
	check := func(at string, s *spec.Service) {
		all, err := deliveries(s, r)
		if err != nil {
			errs = multierror.Append(errs, placed(&r.Stack, at, err))
		}
		for _, d := range all {
			if err := a.checkDelivery(&d, s, r, read); err != nil {
				errs = multierror.Append(errs, placed(&r.Stack, at+"."+d.at, err))
			}
		}
	}
	for _, name := range sortedKeys(r.Stack.Services) {
		s := r.Stack.Services[name]
		check("services."+name, &s)
	}
	for _, name := range sortedKeys(r.Stack.Jobs) {
		j := r.Stack.Jobs[name]
		check("jobs."+name, &j.Service)
	}
	return errs.ErrorOrNil()
}

func (a *Agent) checkDelivery(d *delivery, s *spec.Service, r *store.Revision, read reader) error {
	sample := &store.Task{ID: "0123456789ab", Stack: r.Stack.Name, Service: s.Name, Slot: 1, Attempt: 1}
	if err := a.expand(d, sample, s, &r.Stack, read); err != nil {
		return templateProblem(d.subject(), err)
	}
	if d.mount.Env == "" {
		return nil
	}
	content := d.file.Content
	if content == nil {
		var err error
		if content, err = read(d.file.Digest); err != nil {
			return fmt.Errorf("%s: %w", d.subject(), err)
		}
	}
	if _, err := variable(d.mount.Env, content); err != nil {
		return invalid("%s as variable %s: %v", d.subject(), d.mount.Env, err)
	}
	return nil
}
