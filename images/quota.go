package images

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrNoQuota says that the file system can't limit what a folder holds.
var ErrNoQuota = errors.New("the file system has no project quota")

// Numbers of quotactl(2), fs/quota of the kernel and ioctl_fs_xattr.
const (
	projectQuota   = 2
	setQuota       = 0x800008<<8 | projectQuota
	getState       = 0x5805<<8 | projectQuota // Q_XGETQSTAT
	enforced       = 1 << 5                   // of its flags: project quotas
	blockLimits    = 1
	getXattr       = 0x801c581f
	setXattr       = 0x401c5820
	projectInherit = 0x200
)

// CheckQuota says whether project quotas are enforced where dir is.
func CheckQuota(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	var state [1024]byte
	_, _, errno := unix.Syscall6(unix.SYS_QUOTACTL_FD, f.Fd(), getState, 0, uintptr(unsafe.Pointer(&state)), 0, 0)
	if errno != 0 || binary.NativeEndian.Uint16(state[2:])&enforced == 0 {
		return fmt.Errorf("%w: %s", ErrNoQuota, dir)
	}
	return nil
}

// Limit lets dirs, which are new and on one file system, together hold at most
// size bytes; name is their project's. 0 takes the limit away. ErrNoQuota if
// the file system can't.
func Limit(name string, size int64, dirs ...string) error {
	if len(dirs) == 0 {
		return nil
	}
	if err := CheckQuota(dirs[0]); err != nil {
		return err
	}
	h := fnv.New32a()
	h.Write([]byte(name))
	project := h.Sum32() | 1<<31 // far from those that people give
	for _, dir := range dirs {
		if err := setProject(dir, project); err != nil {
			return fmt.Errorf("limit %s: %w", dir, err)
		}
	}
	f, err := os.Open(dirs[0])
	if err != nil {
		return err
	}
	defer f.Close()
	// struct if_dqblk; limits are in KiB.
	limits := [9]uint64{0: uint64(size+1023) >> 10, 1: uint64(size+1023) >> 10, 8: blockLimits}
	_, _, errno := unix.Syscall6(unix.SYS_QUOTACTL_FD, f.Fd(), setQuota, uintptr(project), uintptr(unsafe.Pointer(&limits)), 0, 0)
	if errno != 0 {
		return fmt.Errorf("limit %s: %w", dirs[0], errno)
	}
	return nil
}

// setProject makes what is made in dir part of a project.
func setProject(dir string, project uint32) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	var attr struct{ flags, extent, extents, project, cow, _, _ uint32 }
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), getXattr, uintptr(unsafe.Pointer(&attr))); errno != 0 {
		return errno
	}
	attr.flags |= projectInherit
	attr.project = project
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), setXattr, uintptr(unsafe.Pointer(&attr))); errno != 0 {
		return errno
	}
	return nil
}
