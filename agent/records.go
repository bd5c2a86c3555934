package agent

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"berth/crash"
	"berth/overlaynet"
	"berth/reconciler"
	"berth/spec"
	"berth/store"
)

// recorded is the fate of one task to create.
type recorded struct {
	id  string
	err error
	// stale: the task exists already or is not wanted any more: nothing is to be
	// done.
	stale bool
}

// taskID derives the id of a task from what it is: the n-th attempt at a slot
// of one stack. Kernel objects are named after it.
func taskID(stackUID, service string, slot, attempt int) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s/%s/%d/%d", stackUID, service, slot, attempt))
	return withLetter(hex.EncodeToString(sum[:6]))
}

// withLetter makes an id that has digits only begin with a letter. It is the
// container's host name, and the C library takes a name of digits for an
// address: it resolves to nothing, /etc/hosts or not.
func withLetter(id string) string {
	if strings.Trim(id, "0123456789") != "" {
		return id
	}
	return string('a'+(id[0]-'0')%6) + id[1:]
}

// recordTasks commits the intent of creating tasks, in one transaction: ids,
// addresses, volumes.
func (a *Agent) recordTasks(plan *reconciler.Plan, acts []reconciler.Action) []recorded {
	out := make([]recorded, len(acts))
	v := a.w.view()
	crash.At("task.record")
	err := a.w.commit(func(c *change) error {
		s, r := c.w.stacks[plan.Stack], c.w.revisions[plan.Stack]
		if s == nil || r.Number != plan.Revision || s.Removing != nil {
			return errors.New("the stack has changed since")
		}
		d := a.derive(v, s, r)
		for i, act := range acts {
			if id := taskID(s.UID, act.Service, act.Slot, act.Attempt); c.w.tasks[id] != nil || s.Stopped[act.Service] {
				out[i].stale = true // a plan made before it was recorded, or the user stopped it
				continue
			}
			t, err := a.newTask(c, s, r, d, act)
			if err != nil {
				c.forgetTask(t.ID)
				out[i].err = err
				continue
			}
			out[i].id = t.ID
			c.putTask(t)
		}
		return nil
	})
	if err != nil {
		for i := range out {
			out[i].err = err
		}
	}
	for _, r := range out {
		if r.err == nil && !r.stale {
			crash.At("task.recorded")
			a.events.task(a.w.task(r.id), "create", "")
		}
	}
	return out
}

func (a *Agent) newTask(c *change, s *store.Stack, r *store.Revision, d *derived, act reconciler.Action) (store.Task, error) {
	svc := r.Stack.Services[act.Service]
	t := store.Task{
		ID:    taskID(s.UID, act.Service, act.Slot, act.Attempt),
		Stack: s.Name, Service: act.Service, Slot: act.Slot, Attempt: act.Attempt, Revision: r.Number,
		Key: d.keys[act.Service], InPlace: d.inPlace[act.Service],
		Contents: inPlaceContents(r, act.Service),
		Image:    svc.Image, Digest: r.Digests[act.Service], Spec: svc, Parent: act.Parents[svc.NetworkMode], Parents: act.Parents,
		State: store.StatePending, Created: time.Now(), Failures: act.Failures, Restarts: act.Restarts, Restarted: act.Restarted,
	}
	if err := a.giveAddresses(c, &t, r, &svc); err != nil {
		return t, err
	}
	err := a.giveVolumes(c, s, r, &t, slotOwner(s, t.Service, t.Slot))
	return t, err
}

// giveAddresses takes an address for t on each network of its service.
func (a *Agent) giveAddresses(c *change, t *store.Task, r *store.Revision, svc *spec.Service) error {
	if svc.NetworkMode != "" {
		return nil
	}
	ordered := attachmentsInOrder(svc.Networks)
	gateway := defaultRoute(r, svc.Networks)
	static := staticAddresses(&r.Stack)
	for i, at := range ordered {
		name := r.Stack.Networks[at.Network].Name
		n := c.network(name)
		if n == nil {
			return fmt.Errorf("network %s does not exist", name)
		}
		e := store.Endpoint{
			Network: name, MAC: at.MAC, Ifname: at.InterfaceName, Aliases: at.Aliases,
			Default: at.Network == gateway, NoServiceName: at.NoServiceName,
		}
		for _, text := range at.LinkLocalIPs {
			if ip, err := netip.ParseAddr(text); err == nil {
				e.LinkLocal = append(e.LinkLocal, ip)
			}
		}
		if list := at.DriverOpts[spec.OptSysctls]; list != "" {
			e.Sysctls = strings.Split(list, ",")
		}
		if e.Ifname == "" {
			e.Ifname = fmt.Sprintf("%s%d", or(n.Spec.DriverOpts[spec.OptIfPrefix], "eth"), i)
		}
		if e.MAC == "" && i == 0 {
			e.MAC = svc.MACAddress
		}
		next := *n
		var err error
		if e.IPv4, err = a.address(c, t, &next, at.IPv4, static[name], false); err != nil {
			return err
		}
		if next.Subnet6.IsValid() {
			if e.IPv6, err = a.address(c, t, &next, at.IPv6, static[name], true); err != nil {
				return err
			}
		}
		c.putNetwork(next)
		t.Endpoints = append(t.Endpoints, e)
		c.putTask(*t) // the next address must see this one
	}
	return nil
}

// address takes wanted, or the next free address after the last one given that
// is not the static address of another service.
func (a *Agent) address(
	c *change, t *store.Task, n *store.Network, wanted string, static map[netip.Addr]bool, six bool,
) (netip.Addr, error) {
	taken := map[netip.Addr]bool{}
	if wanted == "" {
		taken = setAside(n)
	}
	// A predecessor that has exited gives its static address up (see connect).
	before := func(o *store.Task) bool { return wanted != "" && precedes(o, t) }
	c.addresses(n.Name, before, func(e store.Endpoint) { taken[e.IPv4], taken[e.IPv6] = true, true })
	subnet, last := n.Subnet4, &n.Last4
	if six {
		subnet, last = n.Subnet6, &n.Last6
	}
	if wanted != "" {
		addr, err := netip.ParseAddr(wanted)
		switch {
		case err != nil:
			return addr, fmt.Errorf("address %s: %w", wanted, err)
		case !subnet.Contains(addr):
			return addr, fmt.Errorf("address %s is not in subnet %s of network %s", wanted, subnet, n.Name)
		case taken[addr], addr == n.Gateway4, addr == n.Gateway6:
			return addr, fmt.Errorf("address %s of network %s is in use", wanted, n.Name)
		}
		return addr, nil
	}
	from := n.Range4
	if six {
		from = n.Range6
	}
	addr, err := overlaynet.NextAddr(netOf(n), within(from, subnet), *last, func(x netip.Addr) bool { return taken[x] || static[x] })
	if err != nil {
		return addr, fmt.Errorf("network %s: %w", n.Name, err)
	}
	*last = addr
	return addr, nil
}

// precedes says that o was before t in its slot and has exited.
func precedes(o, t *store.Task) bool {
	return o.State == store.StateExited && o.ID != t.ID && o.Stack == t.Stack && o.Service == t.Service && o.Slot == t.Slot
}

func isTrue(text string) bool {
	b, err := strconv.ParseBool(text)
	return b && err == nil
}

func netOf(n *store.Network) overlaynet.Network {
	return overlaynet.Network{
		ID: n.ID, Subnet4: n.Subnet4, Gateway4: n.Gateway4, Subnet6: n.Subnet6, Gateway6: n.Gateway6,
		Internal: n.Internal, MTU: n.MTU, AltName: n.Spec.DriverOpts[spec.OptBridgeName],
		Isolated:      n.Spec.DriverOpts[spec.OptICC] != "" && !isTrue(n.Spec.DriverOpts[spec.OptICC]),
		Unmasqueraded: n.Spec.DriverOpts[spec.OptMasquerade] != "" && !isTrue(n.Spec.DriverOpts[spec.OptMasquerade]),
	}
}
