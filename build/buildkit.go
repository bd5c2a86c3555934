package build

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"berth/spec"
)

// buildkit builds with buildctl, at addr or in a buildkitd of our own.
type buildkit struct {
	b    *Builders
	addr string
}

func (k buildkit) name() string { return "buildkit" }

func (k buildkit) build(ctx context.Context, j *job) error {
	addr := k.addr
	if addr == "" {
		var release func()
		var err error
		if addr, release, err = k.b.daemon.use(ctx); err != nil {
			return err
		}
		defer release()
	}
	s := &solving{j: j, vertexes: map[string]vertex{}}
	out := &lines{f: s.line}
	args := append([]string{"buildctl", "--addr", addr, "build"}, k.args(j)...)
	err := run(ctx, j.room.dir, args, environ(j.env...), out)
	out.flush()
	if err == nil || ctx.Err() != nil {
		return err
	}
	return s.failure(err)
}

// args are those of `buildctl build`.
func (k buildkit) args(j *job) []string {
	out := []string{"--progress=rawjson", "--frontend=dockerfile.v0"}
	opt := func(key, value string) { out = append(out, "--opt", key+"="+value) }
	b := &j.Build
	if strings.Contains(j.context, "://") {
		opt("context", j.context)
	} else {
		out = append(out, "--local", "context="+j.context)
	}
	if j.Dockerfile != "" {
		out = append(out, "--local", "dockerfile="+filepath.Join(j.room.dir, dockerfileDir))
		opt("filename", j.Dockerfile)
	} else if b.Dockerfile != "" {
		opt("filename", b.Dockerfile)
	}
	for i, c := range j.contexts {
		key, id := "context:"+c.name, fmt.Sprintf("named%d", i)
		switch {
		case c.dir != "":
			out = append(out, "--local", id+"="+c.dir)
			opt(key, "local:"+id)
		case c.layout != "":
			out = append(out, "--oci-layout", id+"="+c.layout)
			opt(key, "oci-layout://"+id+"@"+c.digest)
		default:
			opt(key, c.url)
		}
	}
	for _, p := range pairs(b.Args) {
		opt("build-arg:"+p[0], p[1])
	}
	for _, p := range pairs(b.Labels) {
		opt("label:"+p[0], p[1])
	}
	set := func(key, value string) {
		if value != "" {
			opt(key, value)
		}
	}
	set("target", b.Target)
	set("platform", strings.Join(j.Platforms, ","))
	set("force-network-mode", b.Network)
	set("add-hosts", strings.Join(b.ExtraHosts, ","))
	set("ulimit", strings.Join(ulimits(b.Ulimits), ","))
	if b.ShmSize > 0 {
		opt("shm-size", fmt.Sprint(b.ShmSize))
	}
	if k.addr == "" && k.b.cfg.CgroupParent != "" {
		opt("cgroup-parent", k.b.cfg.CgroupParent+"/build")
	}
	switch {
	case b.NoCache:
		out = append(out, "--no-cache")
	case len(b.NoCacheFilter) > 0:
		opt("no-cache", strings.Join(b.NoCacheFilter, ","))
	}
	if b.Pull {
		opt("image-resolve-mode", "pull")
	}
	if j.Memory > 0 {
		j.warn("", "BuildKit has no limit for the memory of a build: --memory is ignored")
	}
	return append(out, k.further(j)...)
}

// further are the arguments about what comes in beside the contexts, and what
// goes out.
func (k buildkit) further(j *job) (out []string) {
	b := &j.Build
	switch b.Provenance {
	case "", "false":
	case "true":
		out = append(out, "--opt", "attest:provenance=mode=min")
	default:
		out = append(out, "--opt", "attest:provenance="+b.Provenance)
	}
	switch b.SBOM {
	case "", "false":
	case "true":
		out = append(out, "--opt", "attest:sbom=")
	default:
		out = append(out, "--opt", "attest:sbom="+b.SBOM)
	}
	for _, s := range j.Secrets {
		out = append(out, "--secret", "id="+s.ID+",src="+j.part(s))
	}
	for _, s := range j.SSH {
		out = append(out, "--ssh", s.ID+"="+j.part(s))
	}
	for _, c := range b.CacheFrom {
		out = append(out, "--import-cache", cacheEntry(c))
	}
	for _, c := range b.CacheTo {
		out = append(out, "--export-cache", cacheEntry(c))
	}
	allow := slices.Clone(b.Entitlements)
	if b.Network == "host" {
		allow = append(allow, "network.host")
	}
	if b.Privileged {
		allow = append(allow, "security.insecure")
	}
	for _, a := range allow {
		out = append(out, "--allow", a)
	}
	if j.Check {
		return append(out, "--opt", "requestid=frontend.lint", "--opt", "frontend.caps=moby.buildkit.frontend.subrequests")
	}
	return append(out, "--output", "type=oci,dest="+j.out)
}

// cacheEntry is a cache in BuildKit's form; a bare reference is one in a
// registry.
func cacheEntry(c string) string {
	if strings.Contains(c, "=") {
		return c
	}
	return "type=registry,ref=" + c
}

func ulimits(list []spec.Ulimit) []string {
	var out []string
	for _, u := range list {
		out = append(out, fmt.Sprintf("%s=%d:%d", u.Name, u.Soft, u.Hard))
	}
	return out
}

// pairs are the entries of m by key.
func pairs(m map[string]string) [][2]string {
	var out [][2]string
	for k, v := range m {
		out = append(out, [2]string{k, v})
	}
	slices.SortFunc(out, func(a, b [2]string) int { return cmp.Compare(a[0], b[0]) })
	return out
}

// vertex is a step as BuildKit tells of it.
type vertex struct {
	Digest    string     `json:"digest"`
	Name      string     `json:"name"`
	Started   *time.Time `json:"started"`
	Completed *time.Time `json:"completed"`
	Cached    bool       `json:"cached"`
	Error     string     `json:"error"`
}

// solving follows the lines of one buildctl.
type solving struct {
	j        *job
	vertexes map[string]vertex
	logs     map[string]*tail
	failed   string // digest of the vertex that failed
	rest     tail   // what is no JSON: how it ended
}

func (s *solving) line(text string) {
	var status struct {
		Vertexes []vertex `json:"vertexes"`
		Logs     []struct {
			Vertex string `json:"vertex"`
			Data   []byte `json:"data"`
		} `json:"logs"`
		Warnings []struct {
			Short []byte `json:"short"`
			URL   string `json:"url"`
			Range []struct {
				Start struct {
					Line int `json:"line"`
				} `json:"start"`
			} `json:"range"`
		} `json:"warnings"`
	}
	if !strings.HasPrefix(text, "{") || json.Unmarshal([]byte(text), &status) != nil {
		s.rest.add(text)
		return
	}
	for _, v := range status.Vertexes {
		s.step(v)
	}
	if s.logs == nil {
		s.logs = map[string]*tail{}
	}
	for _, l := range status.Logs {
		if s.logs[l.Vertex] == nil {
			s.logs[l.Vertex] = &tail{}
		}
		for line := range strings.Lines(string(l.Data)) {
			s.logs[l.Vertex].add(strings.TrimRight(line, "\r\n"))
		}
		s.j.report(Progress{Service: s.j.Service, Step: s.vertexes[l.Vertex].Name, Log: string(l.Data)})
	}
	for _, w := range status.Warnings {
		text := string(w.Short)
		if len(w.Range) > 0 && s.j.Dockerfile != "" {
			text = fmt.Sprintf("%s:%d: %s", s.j.Dockerfile, w.Range[0].Start.Line, text)
		}
		s.j.warn("", text)
	}
}

// step tells of a vertex whose state has changed.
func (s *solving) step(v vertex) {
	was := s.vertexes[v.Digest]
	v.Name = cmp.Or(v.Name, was.Name)
	s.vertexes[v.Digest] = v
	p := Progress{Service: s.j.Service, Step: v.Name}
	switch {
	case v.Error != "":
		if s.failed == "" {
			s.failed = v.Digest
		}
		p.State = StepFailed
	case v.Completed != nil && v.Cached:
		p.State = StepCached
	case v.Completed != nil && v.Started != nil:
		p.State, p.Seconds = StepDone, v.Completed.Sub(*v.Started).Seconds()
	case v.Started != nil && was.Started == nil:
		p.State = StepStarted
	default:
		return
	}
	if !strings.HasPrefix(v.Name, "[internal]") && (was.Completed == nil || v.Error != "") {
		s.j.report(p)
	}
}

// failure turns the end of buildctl into what a person reads. buildctl prints
// the place in the Dockerfile, a few of its lines, and a line "error: …".
func (s *solving) failure(err error) error {
	f := &Failure{}
	var around []string
	for _, line := range s.rest.lines {
		if text, ok := strings.CutPrefix(strings.ToLower(line), "error: "); ok {
			f.Text = strings.TrimPrefix(line[len(line)-len(text):], "failed to solve: ")
			continue
		}
		name, rest, ok := strings.Cut(line, ":")
		switch {
		case ok && name == s.j.Dockerfile && strings.Trim(rest, "0123456789") == "":
			f.Place = line
		case strings.HasPrefix(strings.TrimSpace(line), "-----"), line == "":
		case strings.Contains(line, " | "):
			around = append(around, line)
		}
	}
	f.Lines = strings.Join(around, "\n")
	if log := s.logs[s.failed]; log != nil {
		f.Log = log.String()
	}
	if f.Text == "" {
		f.Text = errors.Join(err, errors.New(s.rest.String())).Error()
	}
	return f
}
