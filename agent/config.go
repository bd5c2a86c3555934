package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"

	"gopkg.in/yaml.v3"

	"berth/images"
	"berth/redact"
)

// Default places, and where the configuration is looked for.
const (
	DefaultRoot   = "/var/lib/berth"
	DefaultRun    = "/run/berth"
	DefaultConfig = "/etc/berth/config.yaml"
	// DefaultProviders holds programs, see Config.Providers.
	DefaultProviders = "/etc/berth/providers"
)

// Config is /etc/berth/config.yaml and the places given on the command line.
// Every key has a default: the file may be missing.
type Config struct {
	// Root holds what survives a reboot, Run what does not.
	Root string `yaml:"-"`
	Run  string `yaml:"-"`
	// Executable is berthd itself: it is started again as the dataplane and
	// as the init of containers. Default: this process's.
	Executable string `yaml:"-"`
	Version    string `yaml:"-"`
	// Log receives the agent's own log.
	Log *slog.Logger `yaml:"-"`
	// Redact learns the values of secrets and keeps them out of what the agent
	// says; Log goes through it too. Default: nothing is redacted.
	Redact *redact.Set `yaml:"-"`

	// Registries by host: mirrors, insecure, ca. Default: none.
	Registries map[string]images.Registry `yaml:"registries"`
	// Runtime is the OCI runtime, crun or runc, as a path. Default: crun if
	// it works here, else runc.
	Runtime string `yaml:"runtime"`
	// Runtimes are paths of further OCI runtimes, by the name that runtime: of a
	// service has. crun and runc need no entry. Default: none.
	Runtimes map[string]string `yaml:"runtimes"`
	// CDI are the folders of device specifications. Default: /etc/cdi, /run/cdi.
	CDI []string `yaml:"cdi"`
	// Generic are the node's generic resources, by kind: what services may
	// reserve with deploy.resources.reservations.generic_resources. Default: none.
	Generic map[string]int64 `yaml:"generic_resources"`
	// Conmon is its path. Default: found in PATH and /usr/libexec.
	Conmon string `yaml:"conmon"`
	// Group may use the API socket. Default: root's group only.
	Group string `yaml:"group"`
	// Prefix begins the names of links and of the nftables table; at most 4
	// bytes. Agents in one network namespace must differ. Default: bt.
	Prefix string `yaml:"prefix"`
	// CgroupParent is the parent of all containers' cgroups. Default: /berth.
	CgroupParent string `yaml:"cgroup_parent"`
	// Pools are the prefixes that networks are taken from. Default:
	// 10.210.0.0/16 to 10.219.0.0/16.
	Pools []netip.Prefix `yaml:"address_pools"`
	// DNS are the resolvers for unknown names. Default: the host's.
	DNS []netip.AddrPort `yaml:"dns"`
	// Journal is journald's socket. Default: /run/systemd/journal/socket.
	Journal string `yaml:"journal"`
	// Labels of this node, for deploy.placement. Default: none.
	Labels map[string]string `yaml:"labels"`
	// Identity says where the key of secrets is: a path (0400), fd:NUMBER or
	// credential:NAME (systemd). Default: a file that the agent makes.
	Identity string `yaml:"identity"`
	// Decrypt says in the same way where further keys are that encrypted files
	// of secrets and configs may be for. Default: none but the host's own.
	Decrypt string `yaml:"decrypt"`
	// Providers is the folder of the programs that x-provider names. Only root
	// may be able to change it. Default: /etc/berth/providers.
	Providers string `yaml:"providers"`
	// Parallel is how many tasks are created at once. Default: 8.
	Parallel int `yaml:"parallel"`
}

// LoadConfig reads path. A missing file is an empty one unless required.
func LoadConfig(path string, required bool) (Config, error) {
	var c Config
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) && !required {
		return c, nil
	}
	if err != nil {
		return c, fmt.Errorf("read the configuration: %w", err)
	}
	defer f.Close()
	dec := yaml.NewDecoder(f)
	dec.KnownFields(true)
	if err := dec.Decode(&c); err != nil && err.Error() != "EOF" {
		return c, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

func (c *Config) fill() error {
	if c.Root == "" {
		c.Root = DefaultRoot
	}
	if c.Run == "" {
		c.Run = DefaultRun
	}
	if c.CgroupParent == "" {
		c.CgroupParent = "/berth"
	}
	if c.Journal == "" {
		c.Journal = "/run/systemd/journal/socket"
	}
	if c.Providers == "" {
		c.Providers = DefaultProviders
	}
	if c.Prefix == "" {
		c.Prefix = "bt"
	}
	if c.Parallel <= 0 {
		c.Parallel = 8
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Executable == "" {
		exe, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find the agent's own program: %w", err)
		}
		c.Executable = exe
	}
	for _, p := range []*string{&c.Root, &c.Run, &c.Providers} {
		abs, err := filepath.Abs(*p)
		if err != nil {
			return err
		}
		*p = abs
	}
	return nil
}

// Socket is the path of the API socket of an agent whose run folder is run.
func Socket(run string) string { return filepath.Join(run, "api.sock") }
