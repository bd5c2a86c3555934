package build

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// buildah builds with buildah, in a store of our own that is only its cache.
type buildah struct{ b *Builders }

func (h buildah) name() string { return "buildah" }

func (h buildah) build(ctx context.Context, j *job) error {
	if err := h.able(j); err != nil {
		return err
	}
	defer h.begin()()
	image := filepath.Join(j.room.dir, "image.id")
	s := &steps{j: j}
	out := &lines{f: s.line}
	defer h.forget(j)
	err := h.run(ctx, j, out, append([]string{"build"}, h.args(j, image)...)...)
	out.flush()
	if err != nil {
		return s.failure(err)
	}
	s.ended(StepDone)
	if len(j.Platforms) > 1 {
		return h.push(ctx, j, "manifest", "push", "--all", j.list())
	}
	id, err := os.ReadFile(image)
	if err != nil {
		return fmt.Errorf("read what buildah built: %w", err)
	}
	return h.push(ctx, j, "push", strings.TrimSpace(string(id)))
}

// list is the name of the manifest list of a build for several platforms.
func (j *job) list() string { return "localhost/berth-" + filepath.Base(j.room.dir) }

// forget takes away the names that buildah gave what only this build needs.
func (h buildah) forget(j *job) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var names []string
	for _, c := range j.contexts {
		if c.layout != "" {
			names = append(names, "localhost/"+j.layouts()+"/"+filepath.Base(c.layout))
		}
	}
	if len(j.Platforms) > 1 {
		names = append(names, j.list())
	}
	for _, name := range names {
		_ = h.run(ctx, j, &lines{f: func(string) {}}, "rmi", name) // of a build that failed early there is none
	}
}

// push writes the image out.
func (h buildah) push(ctx context.Context, j *job, args ...string) error {
	said := &tail{}
	out := &lines{f: said.add}
	args = append(args, "oci-archive:"+j.out)
	if err := h.run(ctx, j, out, args...); err != nil {
		return &Failure{Text: "buildah could not write the image: " + err.Error(), Log: said.String()}
	}
	return nil
}

func (h buildah) run(ctx context.Context, j *job, out *lines, args ...string) error {
	dir := h.b.cfg
	global := []string{
		"buildah", "--root", filepath.Join(dir.Root, "buildah"), "--runroot", filepath.Join(dir.Run, "buildah"),
		"--storage-driver", "overlay", "--registries-conf", h.file("registries.conf"),
	}
	policy := []string{"--signature-policy", h.file("policy.json")}
	verbs := 1
	if args[0] == "manifest" {
		verbs = 2
	}
	if args[0] == "build" || args[len(args)-1] == "oci-archive:"+j.out {
		args = append(append(append([]string{}, args[:verbs]...), policy...), args[verbs:]...)
	}
	env := environ(append(j.env, "TMPDIR="+filepath.Join(dir.Root, "rooms"))...)
	return run(ctx, j.room.dir, confined(append(global, args...)...), env, out)
}

func (h buildah) file(name string) string { return filepath.Join(h.b.cfg.Run, name) }

// begin counts a build. When the last one has ended, the working containers
// go: of one that failed or was killed they are still there.
func (h buildah) begin() (end func()) {
	h.b.mu.Lock()
	h.b.active++
	h.b.mu.Unlock()
	return func() {
		h.b.mu.Lock()
		defer h.b.mu.Unlock()
		h.b.active--
		if h.b.active > 0 {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_ = h.run(ctx, &job{room: room{dir: "/"}}, &lines{f: func(string) {}}, "rm", "--all") // the next one tries again
		removeCgroups(h.b.cfg.CgroupParent)
	}
}

func (c *Config) registriesConf() string {
	var b strings.Builder
	b.WriteString("unqualified-search-registries = [\"docker.io\"]\nshort-name-mode = \"disabled\"\n")
	for _, host := range c.hosts() {
		m := c.Mirrors[host]
		fmt.Fprintf(&b, "[[registry]]\nprefix = %q\nlocation = %q\ninsecure = %t\n", host, host, m.Insecure)
		for _, u := range m.Mirrors {
			if u, err := url.Parse(u); err == nil {
				fmt.Fprintf(&b, "[[registry.mirror]]\nlocation = %q\ninsecure = %t\n", u.Host, u.Scheme == "http" || m.Insecure)
			}
		}
	}
	return b.String()
}

// able refuses what buildah can't do and the image would be wrong without, and
// warns of the rest.
func (h buildah) able(j *job) error {
	b := &j.Build
	const other = "buildah has no such thing; build with BuildKit"
	switch {
	case b.Privileged:
		return &Failure{Text: "build.privileged: " + other}
	case len(b.Entitlements) > 0:
		return &Failure{Text: "build.entitlements: " + other}
	case j.Check:
		return &Failure{Text: "--check: buildah can't check a Dockerfile without building it; use BuildKit"}
	}
	if len(b.ExtraHosts) > 0 && b.Network == "none" {
		j.warn("extra_hosts", "buildah gives RUN steps no /etc/hosts without a network: extra_hosts is ignored")
	}
	if len(b.NoCacheFilter) > 0 && !b.NoCache {
		j.warn("no_cache_filter", "buildah can't leave the cache out for single stages: it is left out for all")
		b.NoCache = true
	}
	if b.Provenance != "" && b.Provenance != "false" {
		j.warn("provenance", "buildah writes no attestations: provenance is ignored")
	}
	if b.SBOM != "" && b.SBOM != "false" {
		j.warn("sbom", "buildah writes no attestations: sbom is ignored")
	}
	return nil
}

// args are those of `buildah build`.
func (h buildah) args(j *job, image string) []string {
	b := &j.Build
	out := []string{"--layers", "--isolation", "oci", "--runtime", h.b.cfg.runtime(), "--force-rm", "--identity-label=false"}
	add := func(flag, value string) {
		if value != "" {
			out = append(out, flag, value)
		}
	}
	if h.b.cfg.CgroupParent != "" {
		add("--cgroup-parent", h.b.cfg.CgroupParent+"/build")
	}
	if f := j.dockerfile(); f != "" {
		out = append(out, "--file", f, "--ignorefile", f+ignoreSuffix)
	} else {
		add("--file", b.Dockerfile)
	}
	network := b.Network
	if network == "" {
		network = "host"
	}
	add("--network", network)
	for _, c := range j.contexts {
		value := c.url + c.dir
		if c.layout != "" {
			value = "docker-image://oci:" + j.layouts() + "/" + filepath.Base(c.layout)
		}
		add("--build-context", c.name+"="+value)
	}
	for _, p := range pairs(b.Args) {
		add("--build-arg", p[0]+"="+p[1])
	}
	for _, p := range pairs(b.Labels) {
		add("--label", p[0]+"="+p[1])
	}
	for _, host := range b.ExtraHosts {
		add("--add-host", strings.Replace(host, "=", ":", 1))
	}
	for _, u := range ulimits(b.Ulimits) {
		add("--ulimit", u)
	}
	add("--target", b.Target)
	switch len(j.Platforms) {
	case 0:
		add("--iidfile", image)
	case 1:
		out = append(out, "--iidfile", image, "--platform", j.Platforms[0])
	default:
		out = append(out, "--platform", strings.Join(j.Platforms, ","), "--manifest", j.list())
	}
	if b.ShmSize > 0 {
		add("--shm-size", fmt.Sprint(b.ShmSize))
	}
	if j.Memory > 0 {
		add("--memory", fmt.Sprint(j.Memory))
	}
	if b.NoCache {
		out = append(out, "--no-cache")
	}
	if b.Pull {
		out = append(out, "--pull=always")
	}
	for _, s := range j.Secrets {
		add("--secret", "id="+s.ID+",src="+j.part(s))
	}
	for _, s := range j.SSH {
		add("--ssh", s.ID+"="+j.part(s))
	}
	h.cache(j, add)
	return append(out, "--", j.context)
}

// cache passes on caches in registries: buildah knows no others.
func (h buildah) cache(j *job, add func(flag, value string)) {
	for _, c := range []struct {
		attribute, flag string
		entries         []string
	}{{"cache_from", "--cache-from", j.Build.CacheFrom}, {"cache_to", "--cache-to", j.Build.CacheTo}} {
		for _, e := range c.entries {
			ref, ok := registryCache(e)
			if !ok {
				j.warn(c.attribute, "buildah keeps caches in registries only: "+c.attribute+" "+e+" is ignored")
				continue
			}
			add(c.flag, ref)
		}
	}
}

// registryCache is the repository of a cache in a registry. buildah takes one
// without a tag.
func registryCache(entry string) (ref string, ok bool) {
	kind := "registry"
	ref = entry
	if strings.Contains(entry, "=") {
		kind, ref = "", ""
		for _, part := range strings.Split(entry, ",") {
			switch key, value, _ := strings.Cut(part, "="); key {
			case "type":
				kind = value
			case "ref":
				ref = value
			}
		}
	}
	if i := strings.LastIndexByte(ref, ':'); i > strings.LastIndexByte(ref, '/') {
		ref = ref[:i]
	}
	return ref, kind == "registry" && ref != ""
}

// steps follows the lines of one `buildah build`.
type steps struct {
	j     *job
	step  string // under way
	text  string // its instruction
	began time.Time
	log   tail
}

var stepLine = regexp.MustCompile(`^(?:\[[^\]]*\] )?(?:\[(\d+)/(\d+)\] )?STEP (\d+)/(\d+): (.*)$`)

func (s *steps) line(text string) {
	if m := stepLine.FindStringSubmatch(text); m != nil {
		s.ended(StepDone)
		stage := ""
		if m[1] != "" {
			stage = "stage " + m[1] + "/" + m[2] + " "
		}
		s.step, s.text, s.began, s.log = fmt.Sprintf("[%s%s/%s] %s", stage, m[3], m[4], m[5]), m[5], time.Now(), tail{}
		s.j.report(Progress{Service: s.j.Service, Step: s.step, State: StepStarted})
		return
	}
	if strings.HasPrefix(text, "--> Using cache") {
		s.ended(StepCached)
		return
	}
	if strings.HasPrefix(text, "time=") {
		return // its own log: of cgroups that are removed a moment later, mostly
	}
	s.log.add(text)
	if strings.HasPrefix(text, "--> ") || s.step == "" || strings.HasPrefix(text, "COMMIT") {
		return
	}
	s.j.report(Progress{Service: s.j.Service, Step: s.step, Log: text + "\n"})
}

func (s *steps) ended(state string) {
	if s.step == "" {
		return
	}
	s.j.report(Progress{Service: s.j.Service, Step: s.step, State: state, Seconds: time.Since(s.began).Seconds()})
	s.step = ""
}

// failure turns the end of buildah into what a person reads: its last line
// begins with "Error: ".
func (s *steps) failure(err error) error {
	f := &Failure{Text: err.Error()}
	var log []string
	for _, line := range s.log.lines {
		if text, ok := strings.CutPrefix(line, "Error: "); ok {
			f.Text = text
			continue
		}
		log = append(log, line)
	}
	f.Log = strings.Join(log, "\n")
	// What it says of the step is said by the place.
	f.Text = buildingAt.ReplaceAllString(f.Text, "")
	if path := s.j.dockerfile(); path != "" {
		content, readErr := os.ReadFile(path)
		if at, around := excerpt(string(content), s.text); readErr == nil && at > 0 {
			f.Place, f.Lines = fmt.Sprintf("%s:%d", s.j.Dockerfile, at), around
		}
	}
	s.ended(StepFailed)
	return f
}

var buildingAt = regexp.MustCompile(`^(?:error )?building at STEP ".*?": `)
