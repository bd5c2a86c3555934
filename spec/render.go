package spec

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"gopkg.in/yaml.v3"
)

// ErrNotLoaded is returned when a Result with errors is printed.
var ErrNotLoaded = errors.New("the Compose files have errors")

// Config prints the stack as one Compose file, "yaml" or "json": merged,
// interpolated, in the canonical long form, as `docker compose config` does.
// A dollar sign is doubled, so that the output can be loaded again; hide, if
// any, changes the text before. Contents of secrets are never in it, but values
// may be the same.
func (r *Result) Config(format string, hide func([]byte) []byte) ([]byte, error) {
	if hide == nil {
		hide = func(text []byte) []byte { return text }
	}
	switch {
	case format != "yaml" && format != "json":
		return nil, fmt.Errorf("print the stack: format %q is not yaml or json", format)
	case r.model != nil:
		out, err := encodeModel(r.model, format)
		return hide(out), err
	case r.Project == nil:
		return nil, fmt.Errorf("print the stack: %w", ErrNotLoaded)
	}
	var out []byte
	var err error
	if format == "json" {
		out, err = r.Project.MarshalJSON()
		out = append(out, '\n')
	} else {
		out, err = r.Project.MarshalYAML()
	}
	if err != nil {
		return nil, fmt.Errorf("print the stack: %w", err)
	}
	return bytes.ReplaceAll(hide(out), []byte("$"), []byte("$$")), nil
}

// encodeModel prints what was loaded without interpolation: there the
// variables are meant, so nothing is escaped.
func encodeModel(model map[string]any, format string) ([]byte, error) {
	if format == "json" {
		out, err := json.MarshalIndent(model, "", "  ")
		if err != nil {
			return nil, fmt.Errorf("print the stack: %w", err)
		}
		return append(out, '\n'), nil
	}
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(model); err != nil {
		return nil, fmt.Errorf("print the stack: %w", err)
	}
	return b.Bytes(), nil
}

// Profiles are those that any service is in, active or not, sorted.
func (r *Result) Profiles() []string {
	set := map[string]bool{}
	for _, s := range children(r.model["services"]) {
		for _, p := range texts(s["profiles"]) {
			set[p] = true
		}
	}
	if r.Project == nil {
		return sortedKeys(set)
	}
	for _, s := range r.Project.AllServices() {
		for _, p := range s.Profiles {
			set[p] = true
		}
	}
	return sortedKeys(set)
}

// Hashes gives the hash of each service by name, without the identity that
// only the agent knows: it tells whether the file has changed, not whether a
// task must be replaced.
func (r *Result) Hashes() map[string]string {
	if r.Stack == nil {
		return nil
	}
	out := map[string]string{}
	for name, s := range r.Stack.Services {
		out[name] = Hash(&s, Identity{})
	}
	return out
}

// Environment lists the variables that took part in interpolation as
// NAME=value, sorted.
func (r *Result) Environment() []string {
	out := make([]string, 0, len(r.environ))
	for k, v := range r.environ {
		out = append(out, k+"="+v)
	}
	slices.Sort(out)
	return out
}
