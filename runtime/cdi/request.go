package cdi

import (
	"fmt"
	"slices"
	"strings"
)

// Request asks for devices by what they can do, as Docker's --gpus does.
type Request struct {
	Driver       string // "nvidia", "cdi", or "": whichever has the capabilities
	Capabilities []string
	Count        int64 // -1: all
	IDs          []string
}

// install says what writes the specification of a vendor's devices.
var install = map[string]string{
	"nvidia.com": "install nvidia-container-toolkit and run nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml",
	"amd.com":    "install amd-container-toolkit and run amd-ctk cdi generate --output=/etc/cdi/amd.json",
	"intel.com":  "write one with Intel's cdi-specs-generator",
}

// Missing is the error for a device that no specification has.
type Missing struct {
	Name string // of the device, or what was asked for
	Hint string
}

func (e *Missing) Error() string { return "no CDI specification has " + e.Name }

// Is makes errors.Is(err, ErrNoDevice) true.
func (e *Missing) Is(target error) bool { return target == ErrNoDevice }

func missing(name string) error {
	vendor, _, _ := strings.Cut(name, "/")
	for suffix, hint := range install {
		if vendor == suffix || strings.HasSuffix(vendor, "."+suffix) {
			return &Missing{Name: name, Hint: hint}
		}
	}
	return &Missing{Name: name, Hint: "let the vendor's tool write it to /etc/cdi"}
}

// Resolve gives the names of devices that q asks for.
func (r *Registry) Resolve(q Request) ([]string, error) {
	if q.Driver == "cdi" {
		for _, id := range q.IDs {
			if !r.Has(id) {
				return nil, missing(id)
			}
		}
		return q.IDs, nil
	}
	kind, err := r.kind(q)
	if err != nil {
		return nil, err
	}
	if len(q.IDs) > 0 {
		var out []string
		for _, id := range q.IDs {
			name := kind + "=" + strings.TrimPrefix(id, kind+"=")
			if !r.Has(name) {
				return nil, missing(name)
			}
			out = append(out, name)
		}
		return out, nil
	}
	have := r.Devices(kind)
	if q.Count < 0 {
		if all := kind + "=all"; r.Has(all) {
			return []string{all}, nil
		}
		return have, nil
	}
	if int(q.Count) > len(have) {
		return nil, &Missing{Name: fmt.Sprintf("%d devices of %s: it has %d", q.Count, kind, len(have)), Hint: "ask for fewer"}
	}
	return have[:q.Count], nil
}

// kind is the first whose vendor is the driver and whose class is one of the
// capabilities. Without a driver, vendors go in alphabetical order.
func (r *Registry) kind(q Request) (string, error) {
	class := "gpu"
	for _, c := range q.Capabilities {
		if slices.Contains([]string{"gpu", "tpu", "npu", "fpga"}, c) {
			class = c
		}
	}
	for _, k := range r.Kinds() {
		vendor, of, _ := strings.Cut(k, "/")
		if !slices.Contains(q.Capabilities, of) && of != class {
			continue
		}
		name := strings.TrimSuffix(vendor, ".com")
		if q.Driver == "" || vendor == q.Driver || name == q.Driver || strings.HasSuffix(name, "."+q.Driver) {
			return k, nil
		}
	}
	vendor := q.Driver
	switch {
	case vendor == "":
		vendor = "nvidia.com"
	case !strings.Contains(vendor, "."):
		vendor += ".com"
	}
	return "", missing(vendor + "/" + class)
}
