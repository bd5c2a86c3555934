package agent

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/go-multierror"

	"berth/api"
	"berth/images"
	"berth/runtime"
	"berth/runtime/cdi"
	"berth/spec"
	"berth/store"
)

// checkMachine finds out before anything is touched whether this machine has
// what the services that shall run ask of it. A plan goes without: it may be
// made where the devices are not.
func (a *Agent) checkMachine(r *store.Revision) error {
	var errs *multierror.Error
	for _, name := range sortedKeys(r.Stack.Services) {
		s := r.Stack.Services[name]
		if s.Replicas == 0 {
			continue
		}
		a.checkBox(r, &s, func(at, hint string, err error) {
			errs = multierror.Append(errs, placed(&r.Stack, "services."+name+"."+at, invalid("%v; %s", err, hint)))
		})
	}
	return errs.ErrorOrNil()
}

// checkBox looks for devices, an OCI runtime, a container to share with.
func (a *Agent) checkBox(r *store.Revision, s *spec.Service, fail func(at, hint string, err error)) {
	if err := a.containers.CheckRuntime(s.Runtime); err != nil {
		fail("runtime", "set its path below runtimes in "+DefaultConfig+", or remove it", bare(err))
	}
	if b := blkio(s.Blkio); b != nil {
		if err := runtime.CheckBlkio(b); err != nil {
			fail("blkio_config", "lsblk lists what there is", bare(err))
		}
	}
	if s.StorageSize > 0 {
		if err := a.checkQuota(); err != nil {
			fail("storage_opt", "mount the file system with prjquota, or remove it", err)
		}
	}
	for i, d := range s.Devices {
		if _, err := os.Stat(d.Source); errors.Is(err, os.ErrNotExist) {
			fail(fmt.Sprintf("devices.%d", i), "write one that is there", fmt.Errorf("device %s does not exist", d.Source))
		}
	}
	for _, n := range s.Shares() {
		if name, ok := strings.CutPrefix(n.Of, "container:"); ok && !willBeNamed(r, name) && containerNamed(a.w.view().tasks, name) == nil {
			fail(n.Attr, "name one that `berth ps -a` lists as running, or a service with service:NAME",
				fmt.Errorf("no container %s of Berth's runs", name))
		}
	}
	a.checkDevices(s, fail)
}

func (a *Agent) checkDevices(s *spec.Service, fail func(at, hint string, err error)) {
	if len(s.CDI)+len(s.Requests) == 0 {
		return
	}
	have := a.containers.Devices()
	report := func(at string, err error) {
		if m := (*cdi.Missing)(nil); errors.As(err, &m) {
			fail(at, m.Hint, err)
		}
	}
	for _, name := range s.CDI {
		_, err := have.Resolve(cdi.Request{Driver: "cdi", IDs: []string{name}})
		report("devices", err)
	}
	for _, q := range s.Requests {
		_, err := have.Resolve(request(q))
		report(q.At, err)
	}
}

func request(q spec.DeviceRequest) cdi.Request {
	return cdi.Request{Driver: q.Driver, Capabilities: q.Capabilities, Count: q.Count, IDs: q.IDs}
}

// devices are the names of the CDI devices that s asks for, of those that
// there are now.
func (a *Agent) devices(s *spec.Service) ([]string, error) {
	out := slices.Clone(s.CDI)
	if len(s.Requests) == 0 {
		return out, nil
	}
	have := a.containers.Devices()
	for _, q := range s.Requests {
		names, err := have.Resolve(request(q))
		if err != nil {
			return nil, errors.Join(runtime.ErrInvalid, err)
		}
		out = append(out, names...)
	}
	return out, nil
}

// checkQuota says whether storage_opt.size can be honoured.
func (a *Agent) checkQuota() error {
	err := images.CheckQuota(a.cfg.Root)
	if errors.Is(err, images.ErrNoQuota) {
		return fmt.Errorf("storage_opt.size needs project quotas, which the file system of %s does not enforce", a.cfg.Root)
	}
	return err
}

// limitStorage makes the folders that take what t writes outside its volumes,
// and limits them.
func (a *Agent) limitStorage(t *store.Task) error {
	if t.Spec.StorageSize <= 0 {
		return nil
	}
	upper, work := filepath.Join(a.taskRoot(t.ID), "upper"), filepath.Join(a.taskRoot(t.ID), "work")
	for _, d := range []string{upper, work} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return fmt.Errorf("limit the storage of %s: %w", t.Name(), err)
		}
	}
	if err := images.Limit(t.ID, t.Spec.StorageSize, upper, work); err != nil {
		return fmt.Errorf("limit the storage of %s: %w", t.Name(), err)
	}
	return nil
}

// bare is an error without the words that only say that it is the request's
// fault.
func bare(err error) error {
	return errors.New(strings.TrimPrefix(err.Error(), runtime.ErrInvalid.Error()+": "))
}

func blkio(b *spec.Blkio) *runtime.Blkio {
	if b == nil {
		return nil
	}
	rates := func(in []spec.BlkioRate) []runtime.DeviceRate {
		var out []runtime.DeviceRate
		for _, r := range in {
			out = append(out, runtime.DeviceRate(r))
		}
		return out
	}
	out := &runtime.Blkio{
		Weight: b.Weight, ReadBps: rates(b.ReadBps), ReadIOps: rates(b.ReadIOps),
		WriteBps: rates(b.WriteBps), WriteIOps: rates(b.WriteIOps),
	}
	for _, w := range b.WeightDevice {
		out.WeightDevice = append(out.WeightDevice, runtime.DeviceRate{Path: w.Path, Rate: int64(w.Weight)})
	}
	return out
}

// checkGeneric holds the generic resources that a stack reserves, beside what
// all other stacks do, against those of the configuration.
// Where the configuration says nothing of them, nobody counts: a warning.
func (a *Agent) checkGeneric(req *api.ApplyRequest, next *store.Revision, report func(api.Progress)) error {
	if req.NoStart {
		return nil
	}
	v := a.w.view()
	taken := map[string]int64{}
	for name, r := range v.revisions {
		if name != next.Stack.Name && v.stacks[name].Removing == nil {
			for _, s := range r.Stack.Services {
				for _, g := range s.Generic {
					taken[g.Kind] += g.Value * int64(s.Replicas)
				}
			}
		}
	}
	for _, name := range sortedKeys(next.Stack.Services) {
		s := next.Stack.Services[name]
		for _, g := range s.Generic {
			taken[g.Kind] += g.Value * int64(s.Replicas)
			if a.cfg.Generic == nil {
				report(api.Progress{Warning: fmt.Sprintf(
					"service %s reserves %s: the configuration of this node has no generic_resources, so nobody counts them", name, g.Kind)})
				continue
			}
			if have := a.cfg.Generic[g.Kind]; taken[g.Kind] > have {
				return placed(&next.Stack, "services."+name+".deploy.resources.reservations.generic_resources", &api.Error{
					Status: http.StatusUnprocessableEntity, Code: api.CodeInvalid,
					Detail: fmt.Sprintf("%d of %s are reserved, and this node has %d", taken[g.Kind], g.Kind, have),
					Hint:   "say what the node has below generic_resources in " + DefaultConfig,
				})
			}
		}
	}
	return nil
}
