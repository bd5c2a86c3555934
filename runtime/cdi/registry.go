package cdi

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// ErrNoDevice says that no specification has the device.
var ErrNoDevice = errors.New("no such CDI device")

// maxFile is the size of the largest specification that is read.
const maxFile = 4 << 20

// Registry is what the specifications of some folders say, at one time.
type Registry struct {
	devices map[string]device // by qualified name
	order   []string
	// Skipped says which files could not be used, and why.
	Skipped []error
}

// device is one device, with the edits of the file that it stands in.
type device struct {
	file         string
	common, edit Edits
}

// file is a specification.
type file struct {
	Version string   `yaml:"cdiVersion"`
	Kind    string   `yaml:"kind"`
	Devices []listed `yaml:"devices"`
	Edits   Edits    `yaml:"containerEdits"`
}

type listed struct {
	Name  string `yaml:"name"`
	Edits Edits  `yaml:"containerEdits"`
}

// Read reads all specifications in dirs. A folder that is not there is empty;
// a device in a later folder hides one of the same name in an earlier.
func Read(dirs ...string) *Registry {
	r := &Registry{devices: map[string]device{}}
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				r.Skipped = append(r.Skipped, err)
			}
			continue
		}
		for _, e := range entries {
			path := filepath.Join(dir, e.Name())
			switch filepath.Ext(path) {
			case ".json", ".yaml", ".yml":
			default:
				continue
			}
			if err := r.add(path); err != nil {
				r.Skipped = append(r.Skipped, fmt.Errorf("%s: %w", path, err))
			}
		}
	}
	return r
}

func (r *Registry) add(path string) error {
	data, err := readRegular(path)
	if err != nil {
		return err
	}
	var f file
	if filepath.Ext(path) == ".json" && !json.Valid(data) {
		return errors.New("not JSON")
	}
	if err := yaml.Unmarshal(data, &f); err != nil { // JSON is YAML
		return err
	}
	if err := f.check(); err != nil {
		return err
	}
	for _, d := range f.Devices {
		name := f.Kind + "=" + d.Name
		if _, ok := r.devices[name]; !ok {
			r.order = append(r.order, name)
		}
		r.devices[name] = device{file: path, common: f.Edits, edit: d.Edits}
	}
	return nil
}

func readRegular(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return nil, errors.Join(errors.New("not a regular file"), err)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("larger than %d MiB", maxFile>>20)
	}
	return data, err
}

func (f *file) check() error {
	if !strings.HasPrefix(f.Version, "0.") && !strings.HasPrefix(f.Version, "1.") {
		return fmt.Errorf("cdiVersion %q is unknown", f.Version)
	}
	if vendor, class, ok := strings.Cut(f.Kind, "/"); !ok || vendor == "" || class == "" || strings.ContainsAny(f.Kind, "= ") {
		return fmt.Errorf("kind %q is not vendor.com/class", f.Kind)
	}
	for _, d := range f.Devices {
		if d.Name == "" || strings.ContainsAny(d.Name, "= ") {
			return fmt.Errorf("a device is named %q", d.Name)
		}
		if err := d.Edits.check(); err != nil {
			return fmt.Errorf("device %s: %w", d.Name, err)
		}
	}
	return f.Edits.check()
}

// Devices lists the names of a kind's devices in the order of the files, but
// for "all".
func (r *Registry) Devices(kind string) []string {
	var out []string
	for _, n := range r.order {
		if k, name, _ := strings.Cut(n, "="); k == kind && name != "all" {
			out = append(out, n)
		}
	}
	return out
}

// Kinds lists the kinds that have a device, sorted.
func (r *Registry) Kinds() []string {
	var out []string
	for _, n := range r.order {
		k, _, _ := strings.Cut(n, "=")
		out = append(out, k)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Has says whether there is a device of this name.
func (r *Registry) Has(name string) bool {
	_, ok := r.devices[name]
	return ok
}
