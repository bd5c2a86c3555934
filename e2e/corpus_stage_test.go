package e2e_test

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
	"gopkg.in/yaml.v3"

	"berth/spec"
	"berth/testbed/corpus"
)

const standin = "berth-testbed/standin"

// staged is a real stack on a machine that has none of its images, files and
// devices. Its files are as published; one more, which comes last, replaces
// what the machine lacks:
//
//	image, build        a stand-in for every image; pull_policy where it forbids to pull one
//	entrypoint          the stand-in, which ignores the command; jobs that others wait for end with 0
//	healthcheck.test    the stand-in's answer, also for the image's own where another waits for it
//	user, group_add     a number for a name: names stand in the image
//	dns                 where it is no address: a line to be filled in
//	platform, runtime, gpus, devices, placement on nodes by name or label
//	                    left out or /dev/null: of this machine
//	volumes             what is outside of the stack's folder comes from a folder of the test; drivers
//	                    but local, and the size of a local volume, which needs a file system with quotas
//	networks.name       of an external one, where it is a variable that nobody set
//	secrets, configs    external ones and such as need a variable come from a file
//
// External networks and volumes are made, and files of secrets and configs
// that were not published.
type staged struct {
	corpus.Case
	// dir is the work folder in the copy, root the copy, host what stands for
	// the machine's folders.
	dir, root, host string
	files           []string
	name            string
	// began is before the stack came up.
	began time.Time
	// ref is the reference's model, with paths as in the copy.
	ref *types.Project
	// once are the services that end; others wait for the health of healthy.
	once, healthy     map[string]bool
	networks, volumes []string // external
	replaced          map[string]bool
}

// stage prepares c below dir. It fails the test where the copy can't be made;
// an error is the stack's.
func stage(t *testing.T, c corpus.Case, dir string) (*staged, error) {
	t.Helper()
	s := &staged{
		began: time.Now(), Case: c, root: filepath.Join(dir, filepath.FromSlash(c.Name)), host: filepath.Join(dir, "host"),
		once: map[string]bool{}, healthy: map[string]bool{}, replaced: map[string]bool{},
	}
	s.dir = filepath.Join(s.root, c.Workdir)
	if err := os.MkdirAll(filepath.Dir(s.root), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(s.root, os.DirFS(c.Dir)); err != nil {
		t.Fatal(err)
	}
	r, err := spec.Load(t.Context(), spec.Options{Dir: s.dir, Files: c.Files, Inspect: true, Environ: corpus.Environ(s.dir)})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Diagnostics.Err(); err != nil {
		return nil, fmt.Errorf("rejected: %w", err)
	}
	s.files, s.name = r.Stack.Files, r.Stack.Name
	if err := s.reference(t.Context()); err != nil {
		return nil, err
	}
	override, err := yaml.Marshal(s.override())
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "standin.yaml")
	if err := os.WriteFile(file, override, 0o644); err != nil {
		t.Fatal(err)
	}
	s.files = append(s.files, file)
	return s, nil
}

// reference reads the reference's model. What it printed is whole: nothing in
// it is interpolated, resolved or checked again.
func (s *staged) reference(ctx context.Context) error {
	text, err := os.ReadFile(s.Accepted)
	if err != nil {
		return err
	}
	text = []byte(strings.ReplaceAll(string(text), s.Root(), s.root))
	s.ref, err = loader.LoadWithContext(ctx, types.ConfigDetails{
		WorkingDir: s.dir, ConfigFiles: []types.ConfigFile{{Filename: "reference.yaml", Content: text}},
	}, func(o *loader.Options) {
		o.SkipInterpolation, o.SkipNormalization, o.SkipConsistencyCheck, o.SkipResolveEnvironment = true, true, true, true
		o.Profiles = []string{"*"}
		o.SetProjectName("reference", false)
	})
	return err
}

// reset and override are the tags that make a later file replace what an
// earlier one says, instead of adding to it.
func reset() *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!reset", Value: "null"} }

func override(v any) *yaml.Node {
	n := &yaml.Node{}
	if err := n.Encode(v); err != nil {
		panic(err) // what is encoded are strings and maps of them
	}
	n.Tag = "!override"
	return n
}

// override is the file that comes last.
func (s *staged) override() map[string]any {
	for _, svc := range s.ref.Services {
		for name, d := range svc.DependsOn {
			switch d.Condition {
			case types.ServiceConditionCompletedSuccessfully:
				s.once[name] = true
			case types.ServiceConditionHealthy:
				s.healthy[name] = true
			}
		}
	}
	services := map[string]any{}
	for name, svc := range s.ref.Services {
		services[name] = s.service(name, svc)
	}
	out := map[string]any{"services": services}
	section := func(name string, entries map[string]any) {
		if len(entries) > 0 {
			out[name] = entries
		}
	}
	volumes := map[string]any{}
	for key, v := range s.ref.Volumes {
		if v.External {
			s.volumes = append(s.volumes, cmp.Or(v.Name, key))
		} else if o := s.volume(v); o != nil {
			volumes[key] = o
		}
	}
	section("volumes", volumes)
	networks := map[string]any{}
	for key, n := range s.ref.Networks {
		if n.External {
			s.networks = append(s.networks, cmp.Or(n.Name, key))
		}
		if n.External && n.Name == "" {
			networks[key] = map[string]any{"name": key}
			s.replaced["networks.name"] = true
		}
	}
	section("networks", networks)
	secrets, configs := map[string]any{}, map[string]any{}
	for key, f := range s.ref.Secrets {
		if o := s.file("secrets", key, types.FileObjectConfig(f)); o != nil {
			secrets[key] = o
		}
	}
	for key, f := range s.ref.Configs {
		if o := s.file("configs", key, types.FileObjectConfig(f)); o != nil {
			configs[key] = o
		}
	}
	section("secrets", secrets)
	section("configs", configs)
	return out
}

// numeric is a user or group that needs no image to be known.
var numeric = regexp.MustCompile(`^[0-9]*(:[0-9]+)?$`)

func (s *staged) service(name string, svc types.ServiceConfig) map[string]any {
	o := map[string]any{"image": standin, "entrypoint": s.entrypoint(name, svc)}
	s.replaced["image"], s.replaced["entrypoint"] = true, true
	replace := func(attribute string, with any) {
		o[attribute] = with
		s.replaced[attribute] = true
	}
	if svc.Build != nil {
		replace("build", reset())
	}
	if svc.PullPolicy == types.PullPolicyNever || svc.PullPolicy == types.PullPolicyBuild {
		replace("pull_policy", reset())
	}
	if h := svc.HealthCheck; h != nil && len(h.Test) > 0 && h.Test[0] != "NONE" || h == nil && s.healthy[name] {
		replace("healthcheck", map[string]any{"test": []string{"CMD", "/standin", "healthy"}})
	}
	if !numeric.MatchString(svc.User) {
		replace("user", "1000")
	}
	if slices.ContainsFunc(svc.GroupAdd, func(g string) bool { return !numeric.MatchString(g) }) {
		replace("group_add", override([]string{"1001"}))
	}
	if svc.Platform != "" && !strings.HasPrefix(svc.Platform, "linux/"+runtime.GOARCH) {
		replace("platform", reset())
	}
	if slices.ContainsFunc(svc.DNS, func(a string) bool { return net.ParseIP(a) == nil }) {
		replace("dns", override([]string{"192.0.2.53"}))
	}
	if svc.Runtime != "" {
		replace("runtime", reset())
	}
	if svc.Gpus != nil {
		replace("gpus", reset())
	}
	if d := svc.Deploy; d != nil {
		deploy := map[string]any{}
		if d.Resources.Reservations != nil && d.Resources.Reservations.Devices != nil {
			deploy["resources"] = map[string]any{"reservations": map[string]any{"devices": reset()}}
		}
		if slices.ContainsFunc(d.Placement.Constraints, func(c string) bool { return !strings.Contains(c, "node.role") }) {
			deploy["placement"] = map[string]any{"constraints": reset()}
		}
		if len(deploy) > 0 {
			replace("deploy", deploy)
		}
	}
	if missing(svc.Devices) {
		var list []string
		for _, d := range svc.Devices {
			list = append(list, "/dev/null:"+cmp.Or(d.Target, d.Source)+":"+cmp.Or(d.Permissions, "rwm"))
		}
		replace("devices", override(list))
	}
	var binds []any
	for _, v := range svc.Volumes {
		if v.Type == types.VolumeTypeBind && !s.inside(v.Source) {
			binds = append(binds, map[string]any{
				"type": "bind", "source": s.onHost(v.Source), "target": v.Target, "read_only": v.ReadOnly,
				"bind": map[string]any{"create_host_path": true},
			})
		} else if v.Type == types.VolumeTypeBind && (v.Bind == nil || !bool(v.Bind.CreateHostPath)) {
			_ = os.MkdirAll(v.Source, 0o755) // it may be a file that is there
		}
	}
	if binds != nil {
		replace("volumes", binds)
	}
	return o
}

// entrypoint is the stand-in's command line, up to what it ignores.
func (s *staged) entrypoint(name string, svc types.ServiceConfig) []string {
	if s.once[name] {
		return []string{"/standin", "once", "--"}
	}
	args := []string{"/standin", "serve"}
	for _, p := range svc.Ports {
		args = append(args, strconv.Itoa(int(p.Target))+"/"+cmp.Or(p.Protocol, "tcp"))
	}
	return append(args, "--")
}

func missing(devices []types.DeviceMapping) bool {
	return slices.ContainsFunc(devices, func(d types.DeviceMapping) bool {
		_, err := os.Stat(d.Source)
		return err != nil
	})
}

// inside says that path is in the stack's folder.
func (s *staged) inside(path string) bool {
	return path == s.root || strings.HasPrefix(path, s.root+"/")
}

// onHost is the place in the test's folder for a path of the machine. Where
// the machine has a file, an empty one is there: Docker would mount a file.
func (s *staged) onHost(path string) string {
	own := filepath.Join(s.host, path)
	if info, err := os.Stat(path); err == nil && !info.IsDir() {
		_ = os.MkdirAll(filepath.Dir(own), 0o755)
		_ = os.WriteFile(own, nil, 0o644) // berth says when it is not there
	}
	return own
}

// volume is what replaces a volume that this machine can't have, or nil.
func (s *staged) volume(v types.VolumeConfig) map[string]any {
	if v.Driver != "" && v.Driver != "local" && v.Driver != "default" {
		s.replaced["volumes.driver"] = true
		return map[string]any{"driver": reset(), "driver_opts": reset()}
	}
	device, bind := v.DriverOpts["device"], strings.Contains(v.DriverOpts["o"], "bind")
	switch {
	case v.DriverOpts["size"] != "" && device == "":
		s.replaced["volumes.driver_opts"] = true
		return map[string]any{"driver_opts": reset()}
	case device == "" || v.DriverOpts["type"] == "tmpfs":
		return nil
	case !bind: // a server that is not here
		s.replaced["volumes.driver_opts"] = true
		return map[string]any{"driver_opts": reset()}
	case !s.inside(device):
		s.replaced["volumes.driver_opts"] = true
		device = s.onHost(device)
	}
	_ = os.MkdirAll(device, 0o755) // Docker does not make it either
	return map[string]any{"driver_opts": map[string]any{"device": device}}
}

// file is what replaces a secret or config that is not in the stack's folder,
// or nil. One that is, but was not published, is made.
func (s *staged) file(section, key string, f types.FileObjectConfig) *yaml.Node {
	if f.Content != "" {
		return nil
	}
	path := f.File
	if !s.inside(path) {
		path = filepath.Join(s.host, section, key)
	}
	if _, err := os.Stat(path); err != nil {
		_ = os.MkdirAll(filepath.Dir(path), 0o755)
		_ = os.WriteFile(path, []byte("stands for "+key), 0o644) // berth says when it is not there
	}
	if path == f.File {
		return nil
	}
	s.replaced[section] = true
	return override(map[string]any{"file": path})
}

// attributes are what the override replaced.
func (s *staged) attributes() []string { return slices.Sorted(maps.Keys(s.replaced)) }
