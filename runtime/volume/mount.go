package volume

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// mountFlags are the options of mount(8) that are flags of mount(2); the rest
// is for the filesystem.
var mountFlags = map[string]uintptr{
	"ro": unix.MS_RDONLY, "nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV, "noexec": unix.MS_NOEXEC,
	"sync": unix.MS_SYNCHRONOUS, "noatime": unix.MS_NOATIME, "nodiratime": unix.MS_NODIRATIME,
	"relatime": unix.MS_RELATIME, "strictatime": unix.MS_STRICTATIME, "bind": unix.MS_BIND,
	"rbind": unix.MS_BIND | unix.MS_REC, "rw": 0, "defaults": 0,
}

func checkOptions(options map[string]string) error {
	for k := range options {
		if k != "type" && k != "o" && k != "device" {
			return fmt.Errorf("unknown driver option %q; type, o and device are known", k)
		}
	}
	if options["device"] == "" && (options["o"] != "" || options["type"] != "") && options["type"] != "tmpfs" {
		return errors.New("driver options without a device")
	}
	return nil
}

// Prepare makes a volume ready for use and returns its folder: one with
// options is mounted, if it is not yet (after a boot). Idempotent.
func (s *Store) Prepare(ctx context.Context, name string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, err := s.get(name)
	if err != nil {
		return "", err
	}
	if len(v.Options) == 0 {
		return v.Mountpoint, nil
	}
	mounted, err := mountinfo.Mounted(v.Mountpoint)
	if err != nil {
		return "", fmt.Errorf("volume %s: %w", name, err)
	}
	if mounted {
		return v.Mountpoint, nil
	}
	if err := s.mountDevice(ctx, v); err != nil {
		return "", fmt.Errorf("volume %s: mount %s: %w", name, orDefault(v.Options["device"], v.Options["type"]), reason(v, err))
	}
	return v.Mountpoint, nil
}

// Release unmounts a volume with options that inUse says nobody uses. inUse is
// asked while Prepare waits: who comes later finds it mounted again. Idempotent.
func (s *Store) Release(name string, inUse func() bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, err := s.get(name)
	if errors.Is(err, ErrNotFound) || err == nil && len(v.Options) == 0 || inUse() {
		return nil
	}
	if err != nil {
		return err
	}
	if err := unmount(v.Mountpoint); err != nil {
		return fmt.Errorf("volume %s: %w", name, err)
	}
	return nil
}

func orDefault(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// reason says in a user's words what mount(2) means. The options themselves are
// never in it: they may hold a password.
func reason(v Volume, err error) error {
	kind := v.Options["type"]
	switch {
	case errors.Is(err, unix.ENODEV):
		return fmt.Errorf("this kernel has no filesystem %s; load its module, or correct driver_opts.type: %w", kind, err)
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("%s does not take these options, or there is no such filesystem on the device; look at driver_opts.o: %w", orDefault(kind, "it"), err)
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTBLK):
		return fmt.Errorf("there is no such device; look at driver_opts.device: %w", err)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return fmt.Errorf("the server refuses it; look at its exports, user and password: %w", err)
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.ETIMEDOUT):
		return fmt.Errorf("the server does not answer; look at addr in driver_opts.o: %w", err)
	}
	return err
}

func (s *Store) mountDevice(ctx context.Context, v Volume) error {
	kind, device := v.Options["type"], v.Options["device"]
	flags, data := parseOptions(v.Options["o"])
	if strings.HasPrefix(kind, "nfs") || kind == "cifs" {
		var err error
		if data, err = resolveAddr(ctx, data); err != nil {
			return err
		}
	}
	bind := flags&unix.MS_BIND != 0
	if kind == "none" || kind == "bind" || bind {
		kind, data = "", ""
	}
	if bind {
		if fi, err := os.Stat(device); err != nil {
			return err
		} else if !fi.IsDir() {
			return unix.ENOTDIR
		}
	}
	if err := s.mount(device, v.Mountpoint, kind, flags, data); err != nil {
		return err
	}
	if bind && flags&unix.MS_RDONLY != 0 {
		// A bind takes flags only when it is mounted again.
		if err := s.mount("", v.Mountpoint, "", flags|unix.MS_REMOUNT, ""); err != nil {
			return errors.Join(err, unmount(v.Mountpoint))
		}
	}
	return nil
}

func parseOptions(o string) (flags uintptr, data string) {
	var rest []string
	for _, f := range strings.Split(o, ",") {
		if flag, ok := mountFlags[f]; ok {
			flags |= flag
		} else if f != "" {
			rest = append(rest, f)
		}
	}
	return flags, strings.Join(rest, ",")
}

// resolveAddr turns addr=NAME into a number: the kernel resolves no names.
func resolveAddr(ctx context.Context, data string) (string, error) {
	parts := strings.Split(data, ",")
	for i, p := range parts {
		host, ok := strings.CutPrefix(p, "addr=")
		if !ok || net.ParseIP(host) != nil {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		ips, err := net.DefaultResolver.LookupIPAddr(ctx, host)
		cancel()
		if err != nil {
			return "", fmt.Errorf("resolve %s: %w", host, err)
		}
		parts[i] = "addr=" + ips[0].IP.String()
	}
	return strings.Join(parts, ","), nil
}

// unmount detaches what is mounted on a folder, if anything is.
func unmount(dir string) error {
	for range 16 {
		err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("unmount %s: %w", dir, err)
		}
	}
	return nil
}

// ErrSubpath says that a path below a volume is not there, or leads out of it.
var ErrSubpath = errors.New("no such path in the volume")

// Subpath opens a path below a volume's folder. Symlinks, which its containers
// may have put there, are resolved within the volume. The returned path names
// the very folder or file that was found, whatever is renamed later, until
// release is called: call it when the container is created.
func Subpath(dir, sub string) (path string, release func(), err error) {
	if filepath.IsAbs(sub) || strings.ContainsRune(sub, 0) {
		return "", nil, fmt.Errorf("subpath %.60q must be relative: %w", sub, ErrSubpath)
	}
	f, err := openInside(dir, sub, unix.O_PATH)
	if err != nil {
		return "", nil, fmt.Errorf("subpath %.60q: %w", sub, errors.Join(ErrSubpath, err))
	}
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd()), func() { f.Close() }, nil
}

// openInside opens a path as if dir were the root; no link leads out of it.
func openInside(dir, sub string, flags uint64) (*os.File, error) {
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer func() { _ = unix.Close(root) }() // only a handle
	name := strings.TrimLeft(filepath.Clean("/"+sub), "/")
	if name == "" {
		name = "."
	}
	how := unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	for range 32 {
		var fd int
		fd, err = unix.Openat2(root, name, &how)
		if err == nil {
			return os.NewFile(uintptr(fd), filepath.Join(dir, name)), nil
		}
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			break
		}
	}
	return nil, &os.PathError{Op: "open", Path: sub, Err: err}
}
