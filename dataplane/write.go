package dataplane

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"

	"berth/crash"
)

// Version is the snapshot format that this package reads and writes.
const Version = 1

// errVersion says that a snapshot is of another format: one dataplane is
// newer than the other's agent. What was in force stays.
var errVersion = errors.New("unknown snapshot version")

// Folder is where the agent and the dataplane of a run folder meet. It is the
// agent's; the files at LockPath and PidPath are the dataplane's.
func Folder(run string) string { return filepath.Join(run, "dataplane") }

// SnapshotPath is the snapshot of a run folder.
func SnapshotPath(run string) string { return filepath.Join(Folder(run), "snapshot.json") }

// LockPath is the file that the dataplane of a run folder holds locked for as
// long as it serves.
func LockPath(run string) string { return filepath.Join(Folder(run), "dataplane.lock") }

// PidPath is the file in which the newest dataplane of a run folder announces
// itself.
func PidPath(run string) string { return filepath.Join(Folder(run), "dataplane.pid") }

// Write puts s in place of the file at path in one step, and only if that
// changes it: a dataplane is never woken for nothing. Equal snapshots are
// equal bytes. The file can be read by whoever can look into its folder.
func Write(path string, s Snapshot) error {
	if s.Version == 0 {
		s.Version = Version
	}
	b, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encode dataplane snapshot: %w", err)
	}
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, b) {
		return nil
	}
	if err := renameio.WriteFile(path, b, 0o644); err != nil {
		return fmt.Errorf("write dataplane snapshot: %w", err)
	}
	crash.At("snapshot.written")
	return nil
}

// Read reads the snapshot at path.
func Read(path string) (Snapshot, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return Snapshot{}, fmt.Errorf("read dataplane snapshot: %w", err)
	}
	var s Snapshot
	if err := json.Unmarshal(b, &s); err != nil {
		return Snapshot{}, fmt.Errorf("decode dataplane snapshot %s: %w", path, err)
	}
	if s.Version != Version {
		return Snapshot{}, fmt.Errorf("decode dataplane snapshot %s: %w %d", path, errVersion, s.Version)
	}
	return s, nil
}
