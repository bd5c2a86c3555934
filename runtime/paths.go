package runtime

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// The layout. Below Run, which a reboot empties or makes stale:
//
//	boot                 the boot id all of it belongs to
//	c/ID/                the bundle: config.json, conmon's fifos and sockets
//	c/ID/record.json     what Create did; absent while and if it never ended
//	c/ID/starting        Start has begun; its time is that of the start
//	c/ID/started         the same file, renamed when Start has ended
//	exits/ID             exit code in decimal, written by conmon (or by us: -1)
//	seccomp/             filters that crun compiled
//	crun/, runc/         the runtimes' own state
//
// Below Root: logs/ID/log, log.1 (newer), log.2 …

var idForm = regexp.MustCompile(`^[a-z0-9]{1,64}$`)

func checkID(id string) error {
	if !idForm.MatchString(id) {
		return invalid("id %q is not 1 to 64 of a-z and 0-9", id)
	}
	return nil
}

func (r *Runtime) bundles() string         { return filepath.Join(r.cfg.Run, "c") }
func (r *Runtime) bundle(id string) string { return filepath.Join(r.cfg.Run, "c", id) }
func (r *Runtime) exitDir() string         { return filepath.Join(r.cfg.Run, "exits") }
func (r *Runtime) exitFile(id string) string {
	return filepath.Join(r.cfg.Run, "exits", id)
}
func (r *Runtime) logDir(id string) string { return filepath.Join(r.cfg.Root, "logs", id) }

// LogPath is the file that the container's output goes to now; rotated ones
// lie beside it.
func (r *Runtime) LogPath(id string) string { return filepath.Join(r.logDir(id), "log") }

func inBundle(bundle, name string) string { return filepath.Join(bundle, name) }

func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(b))
}
