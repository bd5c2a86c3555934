package runtime

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// maxProfile is the size of the largest seccomp profile that is read.
const maxProfile = 1 << 20

func (m *specMaker) seccomp(s *specs.Spec, c Container, profile string) (*specs.LinuxSeccomp, error) {
	switch {
	case profile == "unconfined", profile == "" && c.Privileged:
		return nil, nil //nolint:nilnil // no filter is what was asked for
	case profile == "", profile == "builtin", profile == "default":
		return m.filter.use(s)
	}
	body := []byte(profile)
	if !strings.HasPrefix(strings.TrimSpace(profile), "{") {
		fi, err := os.Stat(profile)
		if err != nil {
			return nil, fmt.Errorf("seccomp profile: %w", err)
		}
		if !fi.Mode().IsRegular() || fi.Size() > maxProfile {
			return nil, invalid("seccomp profile %s is not a file of at most %d KiB", profile, maxProfile>>10)
		}
		if body, err = os.ReadFile(profile); err != nil {
			return nil, fmt.Errorf("seccomp profile: %w", err)
		}
	}
	p, err := seccomp.LoadProfile(string(body), s)
	if err != nil {
		return nil, invalid("seccomp profile %s: %v", clip(profile), err)
	}
	return p, nil
}

// seccompCache keeps the default profile for each set of capabilities, which
// is all it depends on while the kernel stays the same, and what crun compiled
// it to.
//
// To compile it anew for each container is half of what a start costs (12 of
// 24 ms, measured with 50 starts, eight at a time, on two processors). crun
// leaves the result in its state folder and takes it back by an annotation; it
// is the very same filter. The profile stays in the configuration: a runtime
// that does not know the annotation compiles it.
type seccompCache struct {
	dir   string // where compiled filters outlive the agent, "" for nowhere
	stamp string // of boot and runtime binary: with another, compile anew

	mu sync.Mutex
	m  map[string]*filter // by capabilities
}

type filter struct {
	profile *specs.LinuxSeccomp
	file    string
	program string // base64, "" until known
}

// filterAnnotation is crun's, since 0.18.
const filterAnnotation = "run.oci.seccomp_bpf_data"

// keep says where compiled filters are kept. What was rendered before, for a
// trial container, has no place there and is forgotten.
func (c *seccompCache) keep(dir, stamp string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dir, c.stamp, c.m = dir, stamp, nil
}

// use returns the default profile for s and, when it is known, gives s the
// compiled filter.
func (c *seccompCache) use(s *specs.Spec) (*specs.LinuxSeccomp, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f, err := c.get(s)
	if err != nil {
		return nil, err
	}
	if f.program == "" {
		f.program = c.load(f)
	}
	if f.program != "" {
		s.Annotations = maps.Clone(s.Annotations)
		if s.Annotations == nil {
			s.Annotations = map[string]string{}
		}
		s.Annotations[filterAnnotation] = f.program
	}
	return f.profile, nil
}

// get is called with the lock held.
func (c *seccompCache) get(s *specs.Spec) (*filter, error) {
	key := strings.Join(s.Process.Capabilities.Bounding, " ")
	if f := c.m[key]; f != nil {
		return f, nil
	}
	p, err := seccomp.GetDefaultProfile(s)
	if err != nil {
		return nil, fmt.Errorf("default seccomp profile: %w", err)
	}
	f := &filter{profile: p}
	if c.dir != "" {
		b, err := json.Marshal(p)
		if err != nil {
			return nil, fmt.Errorf("default seccomp profile: %w", err)
		}
		sum := sha256.Sum256(append(b, c.stamp...))
		f.file = filepath.Join(c.dir, hex.EncodeToString(sum[:]))
	}
	if c.m == nil || len(c.m) > 64 {
		c.m = map[string]*filter{}
	}
	c.m[key] = f
	return f, nil
}

// load reads a compiled filter, "" if there is none that could be one.
func (c *seccompCache) load(f *filter) string {
	if f.file == "" {
		return ""
	}
	return readProgram(f.file)
}

// readProgram: BPF instructions have 8 bytes, and a program at most 4096.
func readProgram(path string) string {
	b, err := os.ReadFile(path)
	if err != nil || len(b) == 0 || len(b)%8 != 0 || len(b) > 8*4096 {
		return ""
	}
	return base64.StdEncoding.EncodeToString(b)
}

// learn keeps what a runtime compiled for a container that was created with
// spec. Best effort: without it the next start takes longer.
func (c *seccompCache) learn(s *specs.Spec, state string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dir == "" || s.Linux.Seccomp == nil || s.Annotations[filterAnnotation] != "" {
		return
	}
	f := c.m[strings.Join(s.Process.Capabilities.Bounding, " ")]
	if f == nil || f.profile != s.Linux.Seccomp || f.program != "" {
		return // a profile of the user's, or known by now
	}
	made := filepath.Join(state, "seccomp.bpf")
	if f.program = readProgram(made); f.program == "" {
		return
	}
	b, err := os.ReadFile(made)
	if err != nil || os.MkdirAll(c.dir, 0o700) != nil {
		return
	}
	tmp := f.file + ".tmp"
	if os.WriteFile(tmp, b, 0o600) == nil {
		_ = os.Rename(tmp, f.file)
	}
}
