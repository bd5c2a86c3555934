package build

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// daemon is the buildkitd that the agent starts when it is needed, and ends
// when it was not for a while.
type daemon struct {
	cfg *Config

	mu    sync.Mutex
	child *child
	users int
	idle  *time.Timer
}

// startLimit is how long a buildkitd may take until it listens: its first
// start unpacks nothing, and takes 0.2 s.
const startLimit = 20 * time.Second

// use returns the address of a buildkitd that listens, and keeps it until
// release.
func (d *daemon) use(ctx context.Context) (addr string, release func(), err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.idle != nil {
		d.idle.Stop()
	}
	socket := filepath.Join(d.cfg.Run, "buildkitd.sock")
	if !d.alive() {
		if err := d.start(ctx, socket); err != nil {
			return "", nil, fmt.Errorf("start buildkitd: %w", err)
		}
	}
	d.users++
	return "unix://" + socket, sync.OnceFunc(d.release), nil
}

func (d *daemon) release() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.users--
	if d.users == 0 {
		d.idle = time.AfterFunc(d.cfg.Idle, func() {
			d.mu.Lock()
			defer d.mu.Unlock()
			if d.users == 0 {
				d.end()
			}
		})
	}
}

func (d *daemon) alive() bool {
	if d.child == nil {
		return false
	}
	select {
	case <-d.child.done:
		return false
	default:
		return true
	}
}

func (d *daemon) start(ctx context.Context, socket string) error {
	config := filepath.Join(d.cfg.Run, "buildkitd.toml")
	log, err := os.OpenFile(filepath.Join(d.cfg.Root, "buildkitd.log"), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	os.Remove(socket)
	args := confined("buildkitd", "--config", config, "--root", filepath.Join(d.cfg.Root, "buildkit"), "--addr", "unix://"+socket,
		"--containerd-worker=false", "--oci-worker=true", "--oci-worker-binary", d.cfg.runtime(), "--oci-worker-net", "host",
		"--allow-insecure-entitlement", "network.host", "--allow-insecure-entitlement", "security.insecure")
	if d.child, err = start(d.cfg.Root, args, environ(), log, log); err != nil {
		return err
	}
	limit := time.After(startLimit)
	for {
		if conn, err := net.Dial("unix", socket); err == nil { //nolint:noctx // a unix socket answers at once
			return conn.Close()
		}
		select {
		case <-d.child.done:
			return fmt.Errorf("it ended: %w; see %s", d.child.err, log.Name())
		case <-limit:
			d.end()
			return fmt.Errorf("it does not listen after %s; see %s", startLimit, log.Name())
		case <-ctx.Done():
			d.end()
			return context.Cause(ctx)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// stop ends buildkitd whoever uses it.
func (d *daemon) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.idle != nil {
		d.idle.Stop()
	}
	d.end()
}

// end lets buildkitd close its records, then ends what is left of it.
func (d *daemon) end() {
	if !d.alive() {
		return
	}
	pid := d.child.cmd.Process.Pid
	children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid)) // none: kill ends it
	for _, c := range strings.Fields(string(children)) {
		if n, err := strconv.Atoi(c); err == nil {
			_ = syscall.Kill(n, syscall.SIGTERM)
		}
	}
	select {
	case <-d.child.done:
	case <-time.After(5 * time.Second):
	}
	d.child.kill()
	d.child = nil
	removeCgroups(d.cfg.CgroupParent)
}

// runtime is the OCI runtime of RUN steps. BuildKit asks more of it than crun
// 1.8 of Debian 12 has: runc, if it is there.
func (c *Config) runtime() string {
	if path, err := exec.LookPath("runc"); err == nil {
		return path
	}
	return c.Runtime
}

// buildkitdConfig says how to reach registries.
func (c *Config) buildkitdConfig() string {
	var b strings.Builder
	written := map[string]bool{}
	section := func(host string) {
		fmt.Fprintf(&b, "[registry.%q]\n", host)
		written[host] = true
	}
	hosts := c.hosts()
	for _, host := range hosts {
		m := c.Mirrors[host]
		section(host)
		var mirrors []string
		for _, u := range m.Mirrors {
			if u, err := url.Parse(u); err == nil {
				mirrors = append(mirrors, strconv.Quote(u.Host))
			}
		}
		fmt.Fprintf(&b, "mirrors = [%s]\n", strings.Join(mirrors, ", "))
		if m.Insecure {
			b.WriteString("insecure = true\n")
		}
		if m.CA != "" {
			fmt.Fprintf(&b, "ca = [%q]\n", m.CA)
		}
	}
	for _, host := range hosts {
		for _, u := range c.Mirrors[host].Mirrors {
			if u, err := url.Parse(u); err == nil && u.Scheme == "http" && !written[u.Host] {
				section(u.Host)
				b.WriteString("http = true\n")
			}
		}
	}
	return b.String()
}

func (c *Config) hosts() []string {
	var out []string
	for h := range c.Mirrors {
		out = append(out, h)
	}
	slices.Sort(out)
	return out
}
