package agent

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"slices"

	"github.com/hashicorp/go-multierror"

	"berth/api"
	"berth/spec"
	"berth/store"
)

// checkStack finds what can't work before anything is changed.
func (a *Agent) checkStack(r *store.Revision) error {
	var errs *multierror.Error
	fail := func(path, format string, args ...any) {
		errs = multierror.Append(errs, placed(&r.Stack, path, invalid(format, args...)))
	}
	v := a.w.view()
	checkExternal(v, r, fail)
	for _, key := range sortedKeys(r.Stack.Volumes) {
		vol := r.Stack.Volumes[key]
		if vol.External && !a.volumeExists(vol.Name) {
			fail("volumes."+key, "volume %s is external and does not exist; make it with `berth volume create %s`", vol.Name, vol.Name)
		}
	}
	for _, name := range sortedKeys(r.Stack.Services) {
		svc := r.Stack.Services[name]
		for _, d := range svc.DependsOn {
			dep, ok := r.Stack.Services[d.Service]
			if !ok || d.Condition != spec.DependsHealthy || dep.Replicas == 0 || r.Digests[d.Service] == "" {
				continue // a plan does not know images that are not here yet
			}
			if dep.Readiness == nil && a.healthcheck(&store.Task{Digest: r.Digests[d.Service], Spec: dep}) == nil {
				fail("services."+name+".depends_on."+d.Service, "service %s waits for %s to be healthy, but %s has no healthcheck or x-readiness", name, d.Service, d.Service)
			}
		}
		checkMounts(v, r, &svc, fail)
	}
	return errs.ErrorOrNil()
}

// checkFolder refuses a stack that has nothing but the name in common with the
// one that runs, whose file still stands in another folder: two folders of one
// name. Applied, it would take all of the other's services away.
func checkFolder(req *api.ApplyRequest, rev, next *store.Revision) error {
	if rev == nil || len(req.Services) > 0 || rev.Stack.Dir == next.Stack.Dir || len(rev.Stack.Files) == 0 {
		return nil
	}
	for name := range rev.Stack.Services {
		if _, common := next.Stack.Services[name]; common {
			return nil
		}
	}
	if _, err := os.Stat(rev.Stack.Files[0]); err != nil || len(rev.Stack.Services) == 0 {
		return nil
	}
	return &api.Error{
		Status: http.StatusConflict, Code: api.CodeConflict,
		Detail: fmt.Sprintf("stack %s runs from %s and has no service in common with this file", rev.Stack.Name, rev.Stack.Dir),
		Hint:   "give one of them another name, with name: or -p; or `berth down` the other first",
	}
}

// checkExternal finds networks that are not there, and static addresses that
// those do not have.
func checkExternal(v view, r *store.Revision, fail func(path, format string, args ...any)) {
	for _, key := range sortedKeys(r.Stack.Networks) {
		n := r.Stack.Networks[key]
		if ours(n) {
			continue
		}
		rec := v.networks[n.Name]
		if rec == nil {
			fail(networkPlace(&r.Stack, key), "network %s is external and does not exist; make it with `berth network create %s`", n.Name, n.Name)
			continue
		}
		for _, name := range sortedKeys(r.Stack.Services) {
			for _, at := range r.Stack.Services[name].Networks {
				for _, text := range []string{at.IPv4, at.IPv6} {
					addr, err := netip.ParseAddr(text)
					if at.Network == key && err == nil && !rec.Subnet4.Contains(addr) && !rec.Subnet6.Contains(addr) {
						fail("services."+name+".networks."+key, "address %s is in no subnet of network %s", addr, n.Name)
					}
				}
			}
		}
	}
}

// networkPlace is where the file names a network: at the top level, or as a
// network_mode.
func networkPlace(st *spec.Stack, key string) string {
	if _, there := st.Positions["networks."+key]; there {
		return "networks." + key
	}
	for _, name := range sortedKeys(st.Services) {
		if slices.ContainsFunc(st.Services[name].Networks, func(at spec.Attachment) bool { return at.Network == key }) {
			return "services." + name + ".network_mode"
		}
	}
	return "networks." + key
}

// checkMounts finds binds and containers that are not there.
func checkMounts(v view, r *store.Revision, svc *spec.Service, fail func(path, format string, args ...any)) {
	for _, m := range svc.Mounts {
		if m.Type != spec.MountBind || m.CreateHostPath {
			continue
		}
		if _, err := os.Stat(m.Source); errors.Is(err, os.ErrNotExist) {
			fail("services."+svc.Name+".mounts."+m.Target, "bind source %s does not exist; create it, or set create_host_path", m.Source)
		}
	}
	for i, from := range svc.VolumesFrom {
		if c, _, ok := spec.VolumesFromContainer(from); ok && containerNamed(v.tasks, c) == nil && !willBeNamed(r, c) {
			fail(fmt.Sprintf("services.%s.volumes_from.%d", svc.Name, i), "no container %s runs; start its stack first, or name a service", c)
		}
	}
}
