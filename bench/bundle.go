package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// bundle is one container of the floor.
type bundle struct {
	id, dir string
	addr    net.IP
	link    int
}

func (b bundle) rootfs() string { return filepath.Join(b.dir, "rootfs") }
func (b bundle) netns() string  { return filepath.Join(b.dir, "netns") }

// attach makes a network namespace, kept by a bind mount, with one veth whose
// other end is a port of bridge.
func (b bundle) attach(bridge netlink.Link) error {
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		return fmt.Errorf("make the bundle: %w", err)
	}
	if err := os.WriteFile(b.netns(), nil, 0o600); err != nil {
		return fmt.Errorf("make the namespace's file: %w", err)
	}
	ns, err := b.newNamespace()
	if err != nil {
		return err
	}
	defer ns.Close()
	host := fmt.Sprintf("benchve%d", b.link)
	veth := &netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: host, MasterIndex: bridge.Attrs().Index, Flags: net.FlagUp},
		PeerName:      "eth0",
		PeerNamespace: netlink.NsFd(ns),
	}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("make the link: %w", err)
	}
	inside, err := netlink.NewHandleAt(ns)
	if err != nil {
		return fmt.Errorf("open the namespace: %w", err)
	}
	defer inside.Close()
	eth, err := inside.LinkByName("eth0")
	if err != nil {
		return fmt.Errorf("find the link: %w", err)
	}
	mask := net.CIDRMask(16, 32)
	if err := inside.AddrAdd(eth, &netlink.Addr{IPNet: &net.IPNet{IP: b.addr, Mask: mask}}); err != nil {
		return fmt.Errorf("set the address: %w", err)
	}
	lo, err := inside.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	return errors.Join(inside.LinkSetUp(lo), inside.LinkSetUp(eth))
}

// newNamespace makes one on a thread of its own, which ends with it.
func (b bundle) newNamespace() (netns.NsHandle, error) {
	type result struct {
		ns  netns.NsHandle
		err error
	}
	done := make(chan result, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread is not fit for reuse
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- result{err: fmt.Errorf("make the namespace: %w", err)}
			return
		}
		self := fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid())
		if err := unix.Mount(self, b.netns(), "", unix.MS_BIND, ""); err != nil {
			done <- result{err: fmt.Errorf("keep the namespace: %w", err)}
			return
		}
		ns, err := netns.Get()
		done <- result{ns, err}
	}()
	r := <-done
	return r.ns, r.err
}

// mount mounts the image with a writable layer.
func (b bundle) mount(lower string) error {
	upper, work := filepath.Join(b.dir, "upper"), filepath.Join(b.dir, "work")
	for _, d := range []string{b.rootfs(), upper, work} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return fmt.Errorf("make the bundle: %w", err)
		}
	}
	data := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", lower, upper, work)
	if err := unix.Mount("overlay", b.rootfs(), "overlay", 0, data); err != nil {
		return fmt.Errorf("mount the root: %w", err)
	}
	return nil
}

// remove undoes mount and attach; the link goes with its namespace.
func (b bundle) remove() error {
	for _, target := range []string{b.rootfs(), b.netns()} {
		if err := unix.Unmount(target, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", target, err)
		}
	}
	if err := os.RemoveAll(b.dir); err != nil {
		return fmt.Errorf("remove the bundle: %w", err)
	}
	return nil
}

// writeSpec writes the least that a container needs to be one.
func (b bundle) writeSpec(cgroup string) error {
	mounts := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc"},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"newinstance", "ptmxmode=0666", "mode=0620"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "size=65536k"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
	}
	spec := specs.Spec{
		Version: "1.0.2",
		Process: &specs.Process{
			Args: []string{"/app"}, Cwd: "/", Env: []string{"PATH=/"},
			NoNewPrivileges: true, Capabilities: &specs.LinuxCapabilities{},
		},
		Root:     &specs.Root{Path: b.rootfs()},
		Hostname: b.id,
		Mounts:   mounts,
		Linux: &specs.Linux{
			CgroupsPath: cgroup,
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace},
				{Type: specs.MountNamespace},
				{Type: specs.IPCNamespace},
				{Type: specs.UTSNamespace},
				{Type: specs.NetworkNamespace, Path: b.netns()},
			},
		},
	}
	text, err := json.Marshal(spec)
	if err != nil {
		return fmt.Errorf("encode the spec: %w", err)
	}
	if err := os.WriteFile(filepath.Join(b.dir, "config.json"), text, 0o600); err != nil {
		return fmt.Errorf("write the spec: %w", err)
	}
	return nil
}
