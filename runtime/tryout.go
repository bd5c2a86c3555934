package runtime

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strconv"
	"time"
)

// tryTimeout bounds the trial container; it takes some 60 ms.
const tryTimeout = 20 * time.Second

// tryContainer runs a container that does nothing, made exactly as a real one
// is: only that shows whether cgroups, mounts, seccomp and namespaces work
// here. (crun 1.8 refuses hybrid cgroups, and says so only then.)
func tryContainer(ctx context.Context, run string, m *specMaker, o ociRuntime) (err error) {
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	if err := os.MkdirAll(run, 0o700); err != nil {
		return fmt.Errorf("prepare a trial container: %w", err)
	}
	dir, err := os.MkdirTemp(run, "try")
	if err != nil {
		return fmt.Errorf("prepare a trial container: %w", err)
	}
	defer os.RemoveAll(dir)
	root := filepath.Join(dir, "rootfs")
	if err := os.Mkdir(root, 0o755); err != nil {
		return fmt.Errorf("prepare a trial container: %w", err)
	}
	program, ok := exitProgram(goruntime.GOARCH)
	if !ok {
		// No program for this processor: the runtime gets as far as looking for it.
		return runVerb(ctx, o.path, []string{"--version"})
	}
	if err := os.WriteFile(filepath.Join(root, "exit"), program, 0o755); err != nil {
		return fmt.Errorf("prepare a trial container: %w", err)
	}
	id := "try" + strconv.FormatInt(time.Now().UnixNano(), 36)
	s, err := m.make(Container{ID: id, Rootfs: root, Args: []string{"/exit"}})
	if err != nil {
		return fmt.Errorf("prepare a trial container: %w", err)
	}
	config, err := encodeSpec(s)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), config, 0o600); err != nil {
		return fmt.Errorf("prepare a trial container: %w", err)
	}
	state := "--root=" + filepath.Join(dir, "state")
	defer func() {
		if err != nil {
			_ = runVerb(context.WithoutCancel(ctx), o.path, []string{state, "delete", "--force", id})
		}
		_ = m.cg.remove(m.parent + "/" + id)
	}()
	return runVerb(ctx, o.path, []string{state, "run", "--bundle", dir, id})
}

// exitProgram is a static ELF executable of one system call, exit(0): a
// program that is there even when the host has no static shell.
func exitProgram(arch string) ([]byte, bool) {
	var machine uint16
	var code []byte
	switch arch {
	case "amd64":
		machine = 62
		code = []byte{
			0xb8, 60, 0, 0, 0, // mov eax, 60
			0x31, 0xff, // xor edi, edi
			0x0f, 0x05, // syscall
		}
	case "arm64":
		machine = 183
		code = []byte{
			0xa8, 0x0b, 0x80, 0xd2, // mov x8, 93
			0x00, 0x00, 0x80, 0xd2, // mov x0, 0
			0x01, 0x00, 0x00, 0xd4, // svc 0
		}
	default:
		return nil, false
	}
	const base, header = 0x400000, 64 + 56 // file header and one program header
	le := binary.LittleEndian
	b := []byte{0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	b = le.AppendUint16(b, 2) // executable
	b = le.AppendUint16(b, machine)
	b = le.AppendUint32(b, 1)
	b = le.AppendUint64(b, base+header) // entry point
	b = le.AppendUint64(b, 64)          // program headers at
	b = le.AppendUint64(b, 0)           // no sections
	b = le.AppendUint32(b, 0)
	for _, n := range []uint16{64, 56, 1, 0, 0, 0} {
		b = le.AppendUint16(b, n)
	}
	size := uint64(header + len(code))
	b = le.AppendUint32(b, 1) // load
	b = le.AppendUint32(b, 5) // readable, executable
	for _, n := range []uint64{0, base, base, size, size, 0x1000} {
		b = le.AppendUint64(b, n)
	}
	return append(b, code...), true
}
