package runtime

import (
	"errors"
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"

	"berth/runtime/cdi"
)

// injectDevices puts the CDI devices in, last: their edits go over what the
// configuration has by then.
func (m *specMaker) injectDevices(s *specs.Spec, c Container) error {
	if len(c.CDI) == 0 {
		return nil
	}
	r := cdi.Read(m.cdi...)
	for _, err := range r.Skipped {
		m.warn(c.ID, fmt.Sprintf("a CDI specification is left out: %v", err))
	}
	if err := r.Apply(s, c.CDI); err != nil {
		return errors.Join(ErrInvalid, err)
	}
	return nil
}

// Devices reads what CDI devices there are now.
func (r *Runtime) Devices() *cdi.Registry { return cdi.Read(r.cfg.CDI...) }
