package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
)

// watchRule is one entry of develop.watch.
type watchRule struct {
	service string
	path    string // absolute
	file    bool   // it is a file, not a folder
	target  string
	action  types.WatchAction
	initial bool
	exec    types.ServiceHook

	ignore  *patternmatcher.PatternMatcher // by paths below path
	include *patternmatcher.PatternMatcher // nil: everything
	// context and dockerignore are of the service's build, if path lies in it.
	context      string
	dockerignore *patternmatcher.PatternMatcher
}

// alwaysIgnored is what editors and version control write beside the sources.
var alwaysIgnored = []string{".git", "*.swp", "*.swx", ".*.sw?", "*~", ".#*", "#*#", "4913", ".idea", ".DS_Store"}

// watchRules are the rules of services (none: of all), with what is wrong with
// them.
func watchRules(project *types.Project, services []string) ([]watchRule, error) {
	var rules []watchRule
	for _, name := range project.ServiceNames() {
		s := project.Services[name]
		if !wanted(services, name) || s.Develop == nil {
			continue
		}
		for _, w := range s.Develop.Watch {
			r, err := newWatchRule(s, w)
			if err != nil {
				return nil, fmt.Errorf("develop.watch of %s: %w", name, err)
			}
			rules = append(rules, r)
		}
	}
	for _, s := range services {
		if !slices.ContainsFunc(rules, func(r watchRule) bool { return r.service == s }) {
			return nil, hinted{fmt.Errorf("service %s has nothing to watch", s), "give it develop.watch"}
		}
	}
	if len(rules) == 0 {
		return nil, hinted{errors.New("no service has anything to watch"), "give one develop.watch"}
	}
	return rules, nil
}

func newWatchRule(s types.ServiceConfig, w types.Trigger) (watchRule, error) {
	r := watchRule{
		service: s.Name, path: filepath.Clean(w.Path), target: w.Target, action: w.Action, initial: w.InitialSync, exec: w.Exec,
	}
	fi, err := os.Stat(r.path)
	if errors.Is(err, fs.ErrNotExist) {
		return r, fmt.Errorf("%s does not exist", r.path)
	}
	if err != nil {
		return r, err
	}
	r.file = !fi.IsDir()
	if w.Action == types.WatchActionRebuild && s.Build == nil {
		return r, errors.New("the service has no build section, so it can't be rebuilt")
	}
	for _, v := range s.Volumes {
		if v.Type == types.VolumeTypeBind && r.syncs() && (v.Source == r.path || strings.HasPrefix(r.path, v.Source+"/")) {
			return r, fmt.Errorf("%s is mounted into the container already", r.path)
		}
	}
	if r.ignore, err = patternmatcher.New(slices.Concat(everywhere(alwaysIgnored), w.Ignore)); err != nil {
		return r, fmt.Errorf("ignore: %w", err)
	}
	if len(w.Include) > 0 {
		if r.include, err = patternmatcher.New(w.Include); err != nil {
			return r, fmt.Errorf("include: %w", err)
		}
	}
	return r, r.readDockerignore(s.Build)
}

// everywhere makes patterns match in every folder.
func everywhere(patterns []string) []string {
	var out []string
	for _, p := range patterns {
		out = append(out, "**/"+p)
	}
	return out
}

// readDockerignore reads what the build leaves out: what is not in the image is
// not synced either.
func (r *watchRule) readDockerignore(b *types.BuildConfig) error {
	if b == nil || !filepath.IsAbs(b.Context) || relative(b.Context, r.path) == "" {
		return nil
	}
	dockerfile := b.Dockerfile
	if dockerfile == "" {
		dockerfile = "Dockerfile"
	}
	if !filepath.IsAbs(dockerfile) {
		dockerfile = filepath.Join(b.Context, dockerfile)
	}
	for _, name := range []string{dockerfile + ".dockerignore", filepath.Join(b.Context, ".dockerignore")} {
		f, err := os.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		defer f.Close()
		patterns, err := ignorefile.ReadAll(f)
		if err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		r.context = b.Context
		if r.dockerignore, err = patternmatcher.New(patterns); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	}
	return nil
}

// relative is path below dir, "." if it is that; "" if it lies elsewhere.
func relative(dir, path string) string {
	rel, err := filepath.Rel(dir, path)
	if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
		return ""
	}
	return rel
}

func (r *watchRule) syncs() bool {
	return r.action == types.WatchActionSync || r.action == types.WatchActionSyncRestart || r.action == types.WatchActionSyncExec
}

// matches says that a change of a file is this rule's.
func (r *watchRule) matches(file string) bool {
	rel := relative(r.path, file)
	if rel == "" || r.file != (rel == ".") || r.leavesOut(file) {
		return false
	}
	if r.include == nil || rel == "." {
		return true
	}
	included, err := r.include.MatchesOrParentMatches(rel)
	return err == nil && included
}

// leavesOut says that a file or a folder is ignored.
func (r *watchRule) leavesOut(file string) bool {
	if rel := relative(r.path, file); rel != "" && rel != "." {
		if ignored, err := r.ignore.MatchesOrParentMatches(rel); err != nil || ignored {
			return true
		}
	}
	if r.dockerignore == nil {
		return false
	}
	rel := relative(r.context, file)
	if rel == "" || rel == "." {
		return false
	}
	ignored, err := r.dockerignore.MatchesOrParentMatches(rel)
	return err != nil || ignored
}

// place is where a file goes in the container.
func (r *watchRule) place(file string) string {
	return path.Join("/", r.target, filepath.ToSlash(relative(r.path, file)))
}

// files are all that the rule syncs now.
func (r *watchRule) files() ([]string, error) {
	var out []string
	err := filepath.WalkDir(r.path, func(p string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case d.IsDir() && p != r.path && r.skips(p):
			return fs.SkipDir
		case !d.IsDir() && r.matches(p):
			out = append(out, p)
		}
		return nil
	})
	return out, err
}

// skips says that nothing in a folder is of interest: it is ignored, and no
// exception (!pattern) may bring back what is in it.
func (r *watchRule) skips(dir string) bool {
	exceptions := r.ignore.Exclusions() || r.dockerignore != nil && r.dockerignore.Exclusions()
	return !exceptions && r.leavesOut(dir)
}
