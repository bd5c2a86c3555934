package cdi

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Edits change an OCI configuration.
type Edits struct {
	Env     []string `yaml:"env"`
	Devices []node   `yaml:"deviceNodes"`
	Mounts  []mount  `yaml:"mounts"`
	Hooks   []hook   `yaml:"hooks"`
	GIDs    []uint32 `yaml:"additionalGids"`
}

type node struct {
	Path        string  `yaml:"path"`
	HostPath    string  `yaml:"hostPath"` // "": Path
	Type        string  `yaml:"type"`     // c, b, u or p; "": as the host's
	Major       int64   `yaml:"major"`
	Minor       int64   `yaml:"minor"`
	Mode        *uint32 `yaml:"fileMode"`
	Permissions string  `yaml:"permissions"` // "": rwm
	UID         *uint32 `yaml:"uid"`
	GID         *uint32 `yaml:"gid"`
}

type mount struct {
	HostPath      string   `yaml:"hostPath"`
	ContainerPath string   `yaml:"containerPath"`
	Type          string   `yaml:"type"` // "": bind
	Options       []string `yaml:"options"`
}

type hook struct {
	Name    string   `yaml:"hookName"`
	Path    string   `yaml:"path"`
	Args    []string `yaml:"args"`
	Env     []string `yaml:"env"`
	Timeout *int     `yaml:"timeout"`
}

var hookNames = []string{"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"}

func (e *Edits) check() error {
	for _, v := range e.Env {
		if k, _, ok := strings.Cut(v, "="); !ok || k == "" {
			return fmt.Errorf("env %q is not KEY=VALUE", v)
		}
	}
	for _, d := range e.Devices {
		if !path.IsAbs(d.Path) || strings.Trim(d.Permissions, "rwm") != "" {
			return fmt.Errorf("device node %q with permissions %q", d.Path, d.Permissions)
		}
	}
	for _, m := range e.Mounts {
		if m.HostPath == "" || !path.IsAbs(m.ContainerPath) || path.Clean(m.ContainerPath) == "/" {
			return fmt.Errorf("mount of %q at %q", m.HostPath, m.ContainerPath)
		}
	}
	for _, h := range e.Hooks {
		if !slices.Contains(hookNames, h.Name) || !path.IsAbs(h.Path) {
			return fmt.Errorf("hook %q of %q", h.Name, h.Path)
		}
	}
	return nil
}

// Apply puts devices into s, each file's common edits once.
func (r *Registry) Apply(s *specs.Spec, names []string) error {
	seen := map[string]bool{}
	for _, n := range names {
		d, ok := r.devices[n]
		if !ok {
			return missing(n)
		}
		if seen[n] {
			continue
		}
		seen[n] = true
		edits := []Edits{d.common, d.edit}
		if seen[d.file] {
			edits = edits[1:]
		}
		seen[d.file] = true
		for _, e := range edits {
			if err := e.apply(s); err != nil {
				return fmt.Errorf("CDI device %s: %w", n, err)
			}
		}
	}
	return nil
}

func (e *Edits) apply(s *specs.Spec) error {
	for _, v := range e.Env {
		s.Process.Env = setEnv(s.Process.Env, v)
	}
	for _, d := range e.Devices {
		if err := d.apply(s); err != nil {
			return err
		}
	}
	for _, m := range e.Mounts {
		m.apply(s)
	}
	for _, h := range e.Hooks {
		h.apply(s)
	}
	for _, g := range e.GIDs {
		if g != 0 && !slices.Contains(s.Process.User.AdditionalGids, g) {
			s.Process.User.AdditionalGids = append(s.Process.User.AdditionalGids, g)
		}
	}
	return nil
}

func setEnv(env []string, v string) []string {
	k, _, _ := strings.Cut(v, "=")
	env = slices.DeleteFunc(slices.Clone(env), func(o string) bool { return strings.HasPrefix(o, k+"=") })
	return append(env, v)
}

func (d *node) apply(s *specs.Spec) error {
	dev := specs.LinuxDevice{Path: path.Clean(d.Path), Type: d.Type, Major: d.Major, Minor: d.Minor, UID: d.UID, GID: d.GID}
	host := d.HostPath
	if host == "" {
		host = d.Path
	}
	if dev.Type != "p" && (dev.Type == "" || dev.Major == 0) {
		var st unix.Stat_t
		if err := unix.Stat(host, &st); err != nil {
			return fmt.Errorf("device node %s: %w", host, err)
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFCHR:
			dev.Type = "c"
		case unix.S_IFBLK:
			dev.Type = "b"
		default:
			return errors.New(host + " is not a device node")
		}
		dev.Major, dev.Minor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
		if d.Mode == nil {
			mode := os.FileMode(st.Mode & 0o777)
			dev.FileMode = &mode
		}
	}
	if d.Mode != nil {
		mode := os.FileMode(*d.Mode & 0o777)
		dev.FileMode = &mode
	}
	s.Linux.Devices = append(slices.DeleteFunc(s.Linux.Devices, func(o specs.LinuxDevice) bool { return o.Path == dev.Path }), dev)
	if dev.Type == "p" {
		return nil
	}
	access := d.Permissions
	if access == "" {
		access = "rwm"
	}
	s.Linux.Resources.Devices = append(s.Linux.Resources.Devices, specs.LinuxDeviceCgroup{
		Allow: true, Type: dev.Type, Major: &dev.Major, Minor: &dev.Minor, Access: access,
	})
	return nil
}

func (m *mount) apply(s *specs.Spec) {
	target := path.Clean(m.ContainerPath)
	kind, options := m.Type, slices.Clone(m.Options)
	if kind == "" {
		kind = "bind"
	}
	if kind == "bind" && !slices.Contains(options, "bind") && !slices.Contains(options, "rbind") {
		options = append(options, "rbind")
	}
	s.Mounts = slices.DeleteFunc(s.Mounts, func(o specs.Mount) bool { return o.Destination == target })
	s.Mounts = append(s.Mounts, specs.Mount{Destination: target, Type: kind, Source: m.HostPath, Options: options})
}

func (h *hook) apply(s *specs.Spec) {
	if s.Hooks == nil {
		s.Hooks = &specs.Hooks{}
	}
	to := map[string]*[]specs.Hook{
		"prestart":      &s.Hooks.Prestart, //nolint:staticcheck // old specifications have it
		"createRuntime": &s.Hooks.CreateRuntime, "createContainer": &s.Hooks.CreateContainer,
		"startContainer": &s.Hooks.StartContainer, "poststart": &s.Hooks.Poststart, "poststop": &s.Hooks.Poststop,
	}[h.Name]
	*to = append(*to, specs.Hook{Path: h.Path, Args: h.Args, Env: h.Env, Timeout: h.Timeout})
}
