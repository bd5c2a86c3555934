package spec

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/docker/go-units"
)

// maxSeccomp is the size of the largest seccomp profile that is read.
const maxSeccomp = 1 << 20

// minimumStorage of storage_opt.size: below it no program even starts.
const minimumStorage = 1 << 20

// securityOpt reads the file of seccomp=FILE: it lies where the user is, which
// need not be where the agent is, and its content is part of the identity.
func (l *loading) securityOpt(at string, s types.ServiceConfig) []string {
	out := list(s.SecurityOpt)
	for i, o := range out {
		key, value := CutSecurityOpt(o)
		if key != "seccomp" || value == "unconfined" || value == "builtin" || strings.HasPrefix(value, "{") || l.o.Inspect {
			continue
		}
		path := fmt.Sprintf("%s.security_opt.%d", at, i)
		file := value
		if !filepath.IsAbs(file) {
			file = filepath.Join(l.project.WorkingDir, file)
		}
		data, err := readRegular(file, maxSeccomp)
		if err != nil {
			l.add(l.placedValue(Error, path, "seccomp profile "+value+": "+l.relative(err),
				"make the file, or write seccomp=unconfined"))
			continue
		}
		var profile bytes.Buffer
		if err := json.Compact(&profile, data); err != nil {
			l.add(l.placedValue(Error, path, "seccomp profile "+value+" is not JSON: "+err.Error(), "correct the file"))
			continue
		}
		out[i] = "seccomp=" + profile.String()
	}
	return out
}

func blkio(b *types.BlkioConfig) *Blkio {
	if b == nil {
		return nil
	}
	rates := func(in []types.ThrottleDevice) []BlkioRate {
		var out []BlkioRate
		for _, d := range in {
			out = append(out, BlkioRate{Path: d.Path, Rate: int64(max(d.Rate, 0))})
		}
		return out
	}
	out := &Blkio{
		Weight: b.Weight, ReadBps: rates(b.DeviceReadBps), ReadIOps: rates(b.DeviceReadIOps),
		WriteBps: rates(b.DeviceWriteBps), WriteIOps: rates(b.DeviceWriteIOps),
	}
	for _, d := range b.WeightDevice {
		out.WeightDevice = append(out.WeightDevice, BlkioWeight{Path: d.Path, Weight: d.Weight})
	}
	return out
}

func storageSize(opts map[string]string) (int64, error) {
	text := opts["size"]
	if text == "" {
		return 0, nil
	}
	return units.RAMInBytes(text)
}

// isCDI tells the name of a device of the Container Device Interface,
// vendor.com/class=name, from a path.
func isCDI(source string) bool {
	kind, name, ok := strings.Cut(source, "=")
	return ok && name != "" && !strings.HasPrefix(source, "/") && strings.Count(kind, "/") == 1
}

func cdiNames(devices []types.DeviceMapping) []string {
	var out []string
	for _, d := range devices {
		if isCDI(d.Source) {
			out = append(out, d.Source)
		}
	}
	return out
}

// deviceRequests are gpus, whose capability goes without saying, and those of
// the reservations.
func deviceRequests(s types.ServiceConfig) []DeviceRequest {
	var out []DeviceRequest
	add := func(attr string, in []types.DeviceRequest, more ...string) {
		for i, d := range in {
			r := DeviceRequest{
				Driver: d.Driver, Count: int64(d.Count), IDs: list(d.IDs),
				Capabilities: list(d.Capabilities), At: fmt.Sprintf("%s.%d", attr, i),
			}
			for _, c := range more {
				if !slices.Contains(r.Capabilities, c) {
					r.Capabilities = append(r.Capabilities, c)
				}
			}
			if r.Count == 0 && len(r.IDs) == 0 {
				r.Count = -1
			}
			out = append(out, r)
		}
	}
	add("gpus", s.Gpus, "gpu")
	if s.Deploy != nil && s.Deploy.Resources.Reservations != nil {
		add("deploy.resources.reservations.devices", s.Deploy.Resources.Reservations.Devices)
	}
	return out
}

func genericResources(s types.ServiceConfig) []GenericResource {
	if s.Deploy == nil || s.Deploy.Resources.Reservations == nil {
		return nil
	}
	var out []GenericResource
	for _, g := range s.Deploy.Resources.Reservations.GenericResources {
		if d := g.DiscreteResourceSpec; d != nil && d.Value > 0 {
			out = append(out, GenericResource{Kind: d.Kind, Value: d.Value})
		}
	}
	return out
}

// Shared is a namespace that a container has in common with another.
type Shared struct {
	Attr string // network_mode, pid, ipc or uts
	// Of is "service:NAME" or "container:NAME".
	Of string
}

// Shares lists what the containers of s share, in the order network, pid, ipc,
// uts.
func (s *Service) Shares() []Shared {
	var out []Shared
	for _, n := range []Shared{
		{"network_mode", s.NetworkMode},
		{"pid", s.PidMode},
		{"ipc", s.IpcMode},
		{"uts", s.UtsMode},
	} {
		if strings.HasPrefix(n.Of, types.ServicePrefix) || strings.HasPrefix(n.Of, types.ContainerPrefix) {
			out = append(out, n)
		}
	}
	return out
}

// shareIpc makes the ipc namespaces that other services join shareable: their
// /dev/shm must be where another container can have it too. Unlike Docker,
// which asks for ipc: shareable in the file.
func shareIpc(st *Stack) {
	for _, s := range st.Services {
		name, ok := strings.CutPrefix(s.IpcMode, types.ServicePrefix)
		if of, there := st.Services[name]; ok && there && of.IpcMode == "" {
			of.IpcMode = "shareable"
			st.Services[name] = of
		}
	}
}
