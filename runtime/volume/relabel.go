package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// containerLabel is what files have that containers may use, in the policies
// of Fedora, RHEL and Debian.
const containerLabel = "system_u:object_r:container_file_t:s0"

// hostFolders must keep their labels: without them the host does not work.
var hostFolders = []string{
	"/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/opt", "/proc", "/root", "/run", "/sbin", "/srv",
	"/sys", "/tmp", "/usr", "/var", "/var/lib", "/var/log", "/var/run",
}

// Relabel gives what is at path, and below it, the SELinux label that lets
// containers use it, as z and Z ask for in the volume syntax. It does nothing
// where SELinux is off. Berth's containers share one label, so Z is z.
func Relabel(path string) error {
	if _, err := os.Stat("/sys/fs/selinux/enforce"); err != nil {
		return nil
	}
	return relabel(path, "security.selinux", containerLabel)
}

func relabel(path, attr, label string) error {
	if slices.Contains(hostFolders, filepath.Clean(path)) {
		return fmt.Errorf("%s belongs to the host and keeps its SELinux label; leave z and Z out, or mount a folder below it", path)
	}
	return filepath.WalkDir(path, func(p string, _ fs.DirEntry, err error) error {
		if err == nil {
			err = unix.Lsetxattr(p, attr, []byte(label), 0)
		}
		switch {
		case err == nil, errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTSUP):
			return nil // gone meanwhile, or on a filesystem without labels
		}
		return fmt.Errorf("relabel %s: %w", p, err)
	})
}
