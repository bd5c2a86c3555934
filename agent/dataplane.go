package agent

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/gofrs/flock"
	"golang.org/x/sys/unix"

	"berth/crash"
	"berth/dataplane"
	"berth/overlaynet"
)

// needed says whether anybody needs the dataplane now.
func (t *traffic) needed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.snapshot.Networks) > 0 || len(t.snapshot.Loopback) > 0
}

// dataplaneUser is whom the dataplane runs as: it reads what containers and
// foreign resolvers send. All that it may do beyond is to bind port 53.
const dataplaneUser = overlaynet.DataplaneUID

// dataplaneProof is how long a dataplane must have run to be followed at once
// by another one when it ends.
const dataplaneProof = time.Second

// dataplaneFolder makes the folder that agent and dataplane share. It is
// root's, so that no name in it can be made to lead elsewhere; the dataplane
// may read in it, and write the two files that are its own.
func (a *Agent) dataplaneFolder() error {
	dir := dataplane.Folder(a.cfg.Run)
	if _, err := os.Stat(dataplane.LockPath(a.cfg.Run)); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return fmt.Errorf("make the dataplane's folder: %w", err)
	}
	for _, path := range []string{dataplane.PidPath(a.cfg.Run), dataplane.LockPath(a.cfg.Run)} {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o600)
		if err == nil && os.Geteuid() == 0 { // tests without root start no dataplane
			err = f.Chown(dataplaneUser, dataplaneUser)
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("make the dataplane's files: %w", err)
		}
	}
	if os.Geteuid() != 0 {
		return nil
	}
	if err := os.Chown(dir, 0, dataplaneUser); err != nil {
		return fmt.Errorf("let the dataplane read its folder: %w", err)
	}
	return nil
}

// ensureDataplane starts the dataplane when it is needed and does not run. It
// lives in its own session and outlives the agent. With nothing left to serve
// it ends by itself, as its snapshot is empty.
func (a *Agent) ensureDataplane(needed bool) error {
	if !needed {
		return nil
	}
	a.dataplaneMu.Lock()
	defer a.dataplaneMu.Unlock()
	if a.dataplaneStarting {
		return nil // it serves, or will soon: it may not hold its lock yet
	}
	// The dataplane holds this lock for as long as it serves.
	l := flock.New(dataplane.LockPath(a.cfg.Run))
	free, err := l.TryLock()
	if err != nil {
		return fmt.Errorf("look for the dataplane: %w", err)
	}
	if !free {
		return nil
	}
	if err := l.Unlock(); err != nil {
		return fmt.Errorf("look for the dataplane: %w", err)
	}
	log, err := os.OpenFile(filepath.Join(a.cfg.Root, "dataplane.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("start the dataplane: %w", err)
	}
	defer log.Close()
	// Its user may not be able to walk to the folder, or to the program's path:
	// one is handed over open, the other is this process's own.
	folder, err := os.Open(dataplane.Folder(a.cfg.Run))
	if err != nil {
		return fmt.Errorf("start the dataplane: %w", err)
	}
	defer folder.Close()
	program := a.cfg.Executable
	if own, err := os.Executable(); err == nil && own == program {
		program = "/proc/self/exe"
	}
	cmd := exec.Command(program, "dataplane", "--run", a.cfg.Run, "--folder", "/proc/self/fd/3")
	cmd.ExtraFiles = []*os.File{folder}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	cmd.Args[0] = a.cfg.Executable // what people see in ps
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid: true, Credential: &syscall.Credential{Uid: dataplaneUser, Gid: dataplaneUser},
		AmbientCaps: []uintptr{unix.CAP_NET_BIND_SERVICE},
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the dataplane: %w", err)
	}
	crash.At("dataplane.started")
	a.dataplaneStarting = true
	began := time.Now()
	go func() {
		err := cmd.Wait()
		a.dataplaneMu.Lock()
		a.dataplaneStarting = false
		a.dataplaneMu.Unlock()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			a.log.Warn("wait for the dataplane", "err", err)
		}
		// One that ends soon would end again: watchDataplane tries it later.
		if time.Since(began) < dataplaneProof {
			return
		}
		if err := a.ensureDataplane(a.traffic.needed()); err != nil {
			a.log.Error("start the dataplane again", "err", err)
		}
	}()
	return nil
}
