package spec

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/dotenv"
	"github.com/compose-spec/compose-go/v2/loader"
)

// Names of the files that are found without -f, in order of preference.
var (
	defaultFiles = []string{"compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"}

	overrideFiles = []string{
		"compose.override.yml", "compose.override.yaml",
		"docker-compose.override.yml", "docker-compose.override.yaml",
	}
)

// inputs are the answers to: which files, which variables, which name.
type inputs struct {
	files      []string // absolute, or "-"
	projectDir string   // absolute
	environ    map[string]string
	envFiles   []string
	profiles   []string
	name       string
	// named says that name was given by the user outside of the files, so
	// that it wins over a `name:` in them.
	named bool
}

// discover follows `docker compose`: environment, then .env of the project
// folder, then COMPOSE_FILE or the files found upward from Options.Dir. What
// is set earlier wins.
func (l *loading) discover() inputs {
	o := l.o
	in := inputs{environ: environMap(o.Environ)}
	if o.ProjectDir != "" {
		in.projectDir = l.abs(o.ProjectDir)
	}
	for _, f := range o.Files {
		in.addFile(l, f)
	}
	envFiles := o.EnvFiles
	if len(envFiles) == 0 && in.environ["COMPOSE_ENV_FILES"] != "" {
		envFiles = strings.Split(in.environ["COMPOSE_ENV_FILES"], ",")
	}

	// .env may hold COMPOSE_FILE, which may lead to another project folder
	// with another .env; so it is read twice, as docker compose does.
	first := l.projectDir(in)
	in.readEnvFiles(l, envFiles, first)
	l.findFiles(&in)
	if dir := l.projectDir(in); dir != first && len(envFiles) == 0 {
		in.readEnvFiles(l, nil, dir)
	}
	in.projectDir = l.projectDir(in)

	in.profiles = o.Profiles
	if len(in.profiles) == 0 {
		for p := range strings.SplitSeq(in.environ["COMPOSE_PROFILES"], ",") {
			if p = strings.TrimSpace(p); p != "" {
				in.profiles = append(in.profiles, p)
			}
		}
	}
	l.chooseName(&in)
	return in
}

// addFile adds a file that the user names; a remote one is fetched.
func (in *inputs) addFile(l *loading, file string) {
	if !l.remote(file) {
		in.files = append(in.files, l.abs(file))
		return
	}
	path, err := l.fetch(file)
	if err != nil {
		l.add(Diagnostic{Severity: Error, Message: err.Error(), Hint: "check the address, and that you may read it"})
		return
	}
	in.files = append(in.files, path)
}

func (l *loading) abs(path string) string {
	if path == "-" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(l.dir, path)
}

// projectDir is --project-directory, else the folder of the first file, else
// where the user stands.
func (l *loading) projectDir(in inputs) string {
	if in.projectDir != "" {
		return in.projectDir
	}
	for _, f := range in.files {
		if f != "-" {
			return filepath.Dir(f)
		}
	}
	return l.dir
}

func (l *loading) findFiles(in *inputs) {
	if len(in.files) > 0 {
		return
	}
	if list, ok := in.environ["COMPOSE_FILE"]; ok {
		sep := in.environ["COMPOSE_PATH_SEPARATOR"]
		if sep == "" {
			sep = string(os.PathListSeparator)
		}
		for f := range strings.SplitSeq(list, sep) {
			in.addFile(l, f)
		}
		return
	}
	for dir := l.projectDir(*in); ; dir = filepath.Dir(dir) {
		if found := existing(dir, defaultFiles); len(found) > 0 {
			in.files = append(in.files, l.first(found))
			if over := existing(dir, overrideFiles); len(over) > 0 {
				in.files = append(in.files, l.first(over))
			}
			return
		}
		if dir == filepath.Dir(dir) {
			return
		}
	}
}

// first takes the first of several files and says which are left out.
func (l *loading) first(found []string) string {
	for _, other := range found[1:] {
		l.add(Diagnostic{
			Severity: Warning, Position: Position{File: l.show(other)},
			Message: fmt.Sprintf("not read: %s is there too and comes first", l.show(found[0])),
			Hint:    "remove one of them, or name the files with -f",
		})
	}
	return found[0]
}

func existing(dir string, names []string) []string {
	var found []string
	for _, n := range names {
		if p := filepath.Join(dir, n); statOK(p) {
			found = append(found, p)
		}
	}
	return found
}

func statOK(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// readEnvFiles adds the variables of files, or of dir/.env when there are
// none, to those that are not set yet.
func (in *inputs) readEnvFiles(l *loading, files []string, dir string) {
	if len(files) == 0 {
		if off, _ := strconv.ParseBool(in.environ["COMPOSE_DISABLE_ENV_FILE"]); off {
			return
		}
		file := filepath.Join(dir, ".env")
		if info, err := os.Stat(file); err != nil || info.IsDir() {
			return
		}
		files = []string{file}
	}
	vars := map[string]string{}
	for _, f := range files {
		path := l.abs(f)
		more := l.readDotenv(path, func(name string) (string, bool) {
			if v, ok := in.environ[name]; ok {
				return v, true
			}
			v, ok := vars[name]
			return v, ok
		})
		for k, v := range more {
			vars[k] = v
		}
		in.envFiles = append(in.envFiles, path)
	}
	for k, v := range vars {
		if _, set := in.environ[k]; !set {
			in.environ[k] = v
		}
	}
}

var dotenvLine = lazy(`^line (\d+): `)

// readDotenv reads one file of variables; a mistake in it becomes a
// diagnostic.
func (l *loading) readDotenv(path string, lookup func(string) (string, bool)) map[string]string {
	data, err := readRegular(path, maxFile)
	if err != nil {
		l.fail(l.show(path), err, "")
		return nil
	}
	s := newSource(path, l.show(path), data)
	vars, err := parseDotenv(s.data, lookup)
	if err != nil {
		l.add(dotenvDiagnostic(s, err))
	}
	return vars
}

// parseDotenv guards against a parser that panics: these files come from
// anywhere.
func parseDotenv(data []byte, lookup func(string) (string, bool)) (vars map[string]string, err error) {
	if i := bytes.IndexByte(data, 0); i >= 0 {
		return nil, fmt.Errorf("line %d: it holds a NUL, which no variable can", 1+bytes.Count(data[:i], []byte("\n")))
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("cannot be understood: %v", p)
		}
	}()
	vars, err = dotenv.UnmarshalBytesWithLookup(data, lookup)
	if err != nil {
		return nil, fmt.Errorf("parse variables: %w", err)
	}
	return vars, nil
}

func dotenvDiagnostic(s *source, err error) Diagnostic {
	text := strings.TrimPrefix(err.Error(), "parse variables: ")
	line := 1
	if m := dotenvLine().FindStringSubmatch(text); m != nil {
		line, _ = strconv.Atoi(m[1])
		text = text[len(m[0]):]
	}
	if open, ok := strings.CutPrefix(text, "unterminated quoted value "); ok {
		// The parser is at the end of the file by then.
		text = "a quote is not closed"
		for i, l := range s.lines {
			if strings.Contains(l, strings.TrimSpace(open)) {
				line = i + 1
				break
			}
		}
	}
	line = max(1, min(line, len(s.lines)))
	text, _, _ = strings.Cut(text, "\n")
	return s.at(Error, line, 1, len(s.lines[line-1]), "", "variables: "+text, "write NAME=value, one a line")
}

// chooseName applies the precedence -p, COMPOSE_PROJECT_NAME, `name:` in the
// files (the loader's part), the project folder.
func (l *loading) chooseName(in *inputs) {
	from := "-p"
	switch {
	case l.o.ProjectName != "":
		in.name, in.named = l.o.ProjectName, true
	case in.environ["COMPOSE_PROJECT_NAME"] != "":
		in.name, in.named = in.environ["COMPOSE_PROJECT_NAME"], true
		from = "COMPOSE_PROJECT_NAME"
	default:
		folder := filepath.Base(in.projectDir)
		if len(in.files) > 0 && l.o.ProjectDir == "" {
			if name, ok := l.remoteName(in.files[0]); ok {
				folder = name
			}
		}
		in.name = loader.NormalizeProjectName(folder)
		if len(in.name) > maxName {
			in.name = strings.TrimRight(in.name[:maxName], "-_")
		}
		return
	}
	if loader.NormalizeProjectName(in.name) != in.name || len(in.name) > maxName {
		l.add(Diagnostic{
			Severity: Error, Path: "name",
			Message: fmt.Sprintf("%s: %q is not a name for a stack", from, in.name),
			Hint:    nameHint,
		})
	}
}

const (
	maxName  = 63
	nameHint = "use a-z, 0-9, - and _, beginning with a letter or a digit, at most 63 characters"
)

func environMap(environ []string) map[string]string {
	if environ == nil {
		environ = os.Environ()
	}
	m := make(map[string]string, len(environ))
	for _, kv := range environ {
		k, v, _ := strings.Cut(kv, "=")
		if k != "" {
			m[k] = v
		}
	}
	return m
}
