package build

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Builders is the agent's half: it takes requests and finds who builds them.
type Builders struct {
	cfg    Config
	daemon daemon

	mu     sync.Mutex
	active int // builds of buildah under way
}

// Store is what a build needs of the image store.
type Store interface {
	// Save writes images as an OCI layout in a tar.
	Save(ctx context.Context, w io.Writer, refs []string) error
	// Keep stores the image of an OCI archive under names.
	Keep(ctx context.Context, archive io.Reader, names []string) (digest, id string, err error)
}

// ErrNoBuilder says that nothing on this machine can build.
var ErrNoBuilder = errors.New("no builder is installed")

// Failure is a build that failed, for a person to read: what, the last lines
// of the step that failed, and its place in the Dockerfile.
type Failure struct {
	Text  string
	Place string // "Dockerfile:8", "" if unknown
	Lines string // the Dockerfile around it
	Log   string
}

func (f *Failure) Error() string {
	text := f.Text
	if f.Place != "" {
		text = f.Place + ": " + text
	}
	for _, part := range []string{f.Log, f.Lines} {
		if part = strings.TrimRight(part, "\n"); part != "" {
			text += "\n" + part
		}
	}
	return text
}

// Open takes away what a killed agent left and makes the folders.
func Open(cfg Config) (*Builders, error) {
	if cfg.Idle == 0 {
		cfg.Idle = 5 * time.Minute
	}
	b := &Builders{cfg: cfg}
	b.daemon.cfg = &b.cfg
	for _, dir := range []string{cfg.Root, cfg.Run} {
		if err := os.RemoveAll(filepath.Join(dir, "rooms")); err != nil {
			return nil, fmt.Errorf("clear the builds of the last agent: %w", err)
		}
		// Contexts and caches are the user's: nobody else gets there.
		if err := errors.Join(os.MkdirAll(filepath.Join(dir, "rooms"), 0o700), os.Chmod(dir, 0o700)); err != nil {
			return nil, fmt.Errorf("make the folders for builds: %w", err)
		}
	}
	removeCgroups(cfg.CgroupParent)
	return b, b.configure()
}

// configure writes how builders reach registries, and that they need no
// signatures: as pulls.
func (b *Builders) configure() error {
	for name, text := range map[string]string{
		"buildkitd.toml":  b.cfg.buildkitdConfig(),
		"registries.conf": b.cfg.registriesConf(),
		"policy.json":     `{"default": [{"type": "insecureAcceptAnything"}]}`,
	} {
		if err := os.WriteFile(filepath.Join(b.cfg.Run, name), []byte(text), 0o600); err != nil {
			return fmt.Errorf("configure the builders: %w", err)
		}
	}
	return nil
}

// Close ends the buildkitd, if one was started.
func (b *Builders) Close() error {
	b.daemon.stop()
	removeCgroups(b.cfg.CgroupParent)
	return nil
}

// archiveFile is the OCI archive that a builder writes into its room.
const archiveFile = "image.tar"

// job is a request in its room.
type job struct {
	Request
	room     room
	context  string // a folder, or a URL
	contexts []namedContext
	out      string   // the OCI archive to write
	env      []string // of the builder
	report   func(Progress)
}

// namedContext is an additional context: one of dir, layout and url.
type namedContext struct {
	name, dir, layout, digest, url string
}

func (j *job) warn(attribute, text string) {
	j.report(Progress{Service: j.Service, Attribute: attribute, Warning: text})
}

// dockerfile is the path of the Dockerfile, "" with a remote context.
func (j *job) dockerfile() string {
	if j.Dockerfile == "" {
		return ""
	}
	return filepath.Join(j.room.dir, dockerfileDir, j.Dockerfile)
}

// part is where a secret or key is: in the room, or an agent's socket.
func (j *job) part(p Part) string {
	if p.Socket != "" {
		return p.Socket
	}
	return filepath.Join(j.room.secret, p.File)
}

// Build reads a request, as Write wrote it, builds it and keeps the image in
// store. It blocks until then; the end of ctx ends the build and all of its
// processes, and leaves nothing behind. socket finds an SSH agent that the
// client offers.
func (b *Builders) Build(ctx context.Context, body io.Reader, store Store, socket func(string) (string, error), report func(Progress)) (Built, error) {
	var id [6]byte
	rand.Read(id[:]) // never fails
	name := hex.EncodeToString(id[:])
	j := &job{room: room{filepath.Join(b.cfg.Root, "rooms", name), filepath.Join(b.cfg.Run, "rooms", name)}, report: report}
	defer os.RemoveAll(j.room.dir)
	defer os.RemoveAll(j.room.secret)
	if err := errors.Join(os.MkdirAll(j.room.dir, 0o700), os.MkdirAll(j.room.secret, 0o700)); err != nil {
		return Built{}, fmt.Errorf("make room for the build: %w", err)
	}
	var err error
	if j.Request, err = j.room.unpack(body); err != nil {
		return Built{}, err
	}
	if err := j.check(socket); err != nil {
		return Built{}, err
	}
	j.out = filepath.Join(j.room.dir, archiveFile)
	builder, err := b.choose(j.Builder)
	if err != nil {
		return Built{}, err
	}
	if err := b.learn(j); err != nil {
		return Built{}, err
	}
	if err := j.resolve(ctx, store); err != nil {
		return Built{}, err
	}
	if err := j.authorize(); err != nil {
		return Built{}, err
	}
	if err := builder.build(ctx, j); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return Built{}, err
	}
	built := Built{Service: j.Service, Names: j.Names, Builder: builder.name()}
	if j.Check {
		return built, nil
	}
	f, err := os.Open(j.out)
	if err != nil {
		return Built{}, fmt.Errorf("read what %s built: %w", builder.name(), err)
	}
	defer f.Close()
	built.Digest, built.ID, err = store.Keep(ctx, f, j.Names)
	return built, err
}

// learn tells about the secrets of a build before it can show them.
func (b *Builders) learn(j *job) error {
	if b.cfg.Redact == nil {
		return nil
	}
	for _, s := range j.Secrets {
		value, err := os.ReadFile(j.part(s))
		if err != nil {
			return fmt.Errorf("read build secret %s: %w", s.ID, err)
		}
		b.cfg.Redact(value)
	}
	for _, a := range j.Auths {
		b.cfg.Redact([]byte(a.Password))
	}
	return nil
}

// authorize writes the client's credentials where builders look for them. The
// file is on tmpfs and goes with the room.
func (j *job) authorize() error {
	if len(j.Auths) == 0 {
		return nil
	}
	type entry struct {
		Auth []byte `json:"auth"` // base64 in JSON
	}
	entries := map[string]entry{}
	for host, a := range j.Auths {
		entries[host] = entry{[]byte(a.Username + ":" + a.Password)}
		if host == "docker.io" {
			entries["https://index.docker.io/v1/"] = entries[host]
		}
	}
	text, err := json.Marshal(map[string]any{"auths": entries})
	if err != nil {
		return err
	}
	file := filepath.Join(j.room.secret, "config.json")
	j.env = []string{"DOCKER_CONFIG=" + j.room.secret, "REGISTRY_AUTH_FILE=" + file}
	return os.WriteFile(file, text, 0o600)
}

// layouts is the folder of the room where images lie that are contexts. Its
// name, which buildah makes a reference of, is no other build's.
func (j *job) layouts() string { return "room-" + filepath.Base(j.room.dir) }

// check refuses a request that no client of ours sends.
func (j *job) check(socket func(string) (string, error)) (err error) {
	if j.Dockerfile != "" && (!filepath.IsLocal(j.Dockerfile) || strings.ContainsRune(j.Dockerfile, '/')) {
		return fmt.Errorf("dockerfile %q is no file name", j.Dockerfile)
	}
	for _, p := range slices.Concat(j.Secrets, j.SSH) {
		if p.Socket == "" && (!filepath.IsLocal(p.File) || !strings.HasPrefix(p.File, partsDir+"/")) {
			return fmt.Errorf("part %q is not in the tar", p.File)
		}
		if p.ID == "" || strings.ContainsAny(p.ID, ",=") {
			return fmt.Errorf("id %q: builders take none with a comma or an equals sign", p.ID)
		}
	}
	for i, p := range j.SSH {
		if p.Socket != "" {
			if j.SSH[i].Socket, err = socket(p.Socket); err != nil {
				return err
			}
		}
	}
	return nil
}

// resolve finds the contexts: in the room, in the image store, or elsewhere.
func (j *job) resolve(ctx context.Context, store Store) error {
	c, err := j.source(ctx, store, "", j.Build.Context)
	if err != nil {
		return err
	}
	if j.context = c.dir + c.url; j.context == "" {
		return errors.New("the build context can't be an image; use additional_contexts")
	}
	names := make([]string, 0, len(j.Build.Contexts))
	for name := range j.Build.Contexts {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		c, err := j.source(ctx, store, name, j.Build.Contexts[name])
		if err != nil {
			return fmt.Errorf("context %s: %w", name, err)
		}
		j.contexts = append(j.contexts, c)
	}
	return nil
}

func (j *job) source(ctx context.Context, store Store, name, source string) (namedContext, error) {
	c := namedContext{name: name}
	if ref, ok := strings.CutPrefix(source, SourceImage); ok {
		c.layout = filepath.Join(j.room.dir, j.layouts(), hex.EncodeToString([]byte(name)))
		r, w := io.Pipe()
		go func() { w.CloseWithError(store.Save(ctx, w, []string{ref})) }()
		var err error
		c.digest, err = layout(c.layout, r)
		r.CloseWithError(err)
		return c, err
	}
	if n, ok := strings.CutPrefix(source, SourceFolder); ok {
		if strings.Trim(n, "0123456789") != "" {
			return c, fmt.Errorf("folder %q is not in the tar", n)
		}
		c.dir = filepath.Join(j.room.dir, foldersDir, n)
		return c, nil
	}
	if !strings.Contains(source, "://") || strings.HasPrefix(source, "-") {
		return c, fmt.Errorf("context %q is no URL", source)
	}
	c.url = source
	return c, nil
}

// builder is a program that builds.
type builder interface {
	name() string
	// build writes the image of j as an OCI archive to j.out. It ends with ctx
	// and then leaves no process and no mount.
	build(ctx context.Context, j *job) error
}

// choose finds who builds: whom the user names, else the BuildKit of
// BUILDKIT_HOST, else a buildkitd of this machine, else buildah.
func (b *Builders) choose(want string) (builder, error) {
	missing := func(programs ...string) error {
		for _, p := range programs {
			if _, err := exec.LookPath(p); err != nil {
				return fmt.Errorf("%s is not installed here", p)
			}
		}
		return nil
	}
	host := want
	if want == "" {
		host = os.Getenv("BUILDKIT_HOST")
	}
	switch {
	case strings.Contains(host, "://"):
		if err := missing("buildctl"); err != nil {
			return nil, fmt.Errorf("%w: to build at %s %w; it comes with BuildKit", ErrNoBuilder, host, err)
		}
		return buildkit{b: b, addr: host}, nil
	case want == "buildkit":
		if err := missing("buildctl", "buildkitd"); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNoBuilder, err)
		}
		return buildkit{b: b}, nil
	case want == "buildah":
		if err := missing("buildah"); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNoBuilder, err)
		}
		return buildah{b}, nil
	case want != "" && want != "default":
		return nil, fmt.Errorf("builder %q: write buildkit, buildah or the address of a BuildKit such as unix:///run/buildkit/buildkitd.sock", want)
	}
	if err := missing("buildctl", "buildkitd"); err == nil {
		return buildkit{b: b}, nil
	}
	if err := missing("buildah"); err == nil {
		return buildah{b}, nil
	}
	return nil, ErrNoBuilder
}

// removeCgroups takes away the empty cgroups below parent/build, in every
// hierarchy: a builder that was killed leaves those of its RUN steps.
func removeCgroups(parent string) {
	if parent == "" {
		return
	}
	own := filepath.Join(parent, "build")
	roots, _ := filepath.Glob("/sys/fs/cgroup/*") // a constant pattern is never bad
	for _, root := range append(roots, "/sys/fs/cgroup") {
		var dirs []string
		_ = filepath.WalkDir(filepath.Join(root, own), func(path string, e os.DirEntry, err error) error {
			if err == nil && e.IsDir() {
				dirs = append(dirs, path)
			}
			return nil // most hierarchies have none
		})
		slices.Reverse(dirs)
		for _, d := range dirs {
			os.Remove(d)
		}
	}
}
