package remote

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// repository is a place in a Git repository.
type repository struct {
	url  string
	ref  string // branch, tag or commit; "" is the default branch
	path string // of a folder or file in it; "" is its root
}

var (
	scpForm    = regexp.MustCompile(`^[A-Za-z0-9_.-]+@[A-Za-z0-9_.-]+:[^:]+$`)
	commitForm = regexp.MustCompile(`^[0-9a-f]{40}([0-9a-f]{24})?$`)
)

// parseGit takes URL#REF:PATH apart. http, https and file need .git at the
// end of the repository, so that the URL of a page is not taken for one.
func parseGit(s string) (repository, bool) {
	url, fragment, _ := strings.Cut(s, "#")
	g := repository{url: url}
	g.ref, g.path, _ = strings.Cut(fragment, ":")
	scheme, rest, ok := strings.Cut(url, "://")
	switch {
	case strings.HasPrefix(s, "-"):
		return g, false
	case ok && (scheme == "ssh" || scheme == "git"):
		return g, rest != "" && !strings.HasPrefix(rest, "-")
	case ok && (scheme == "https" || scheme == "http" || scheme == "file"):
		return g, strings.HasSuffix(strings.TrimSuffix(rest, "/"), ".git")
	}
	return g, !ok && scpForm.MatchString(url)
}

// repository fetches one commit of a repository, without its history.
func (f Fetcher) repository(ctx context.Context, g repository) (string, error) {
	said := redact(g.url)
	if _, err := exec.LookPath("git"); err != nil {
		return "", fmt.Errorf("fetch %s: the git program is not installed", said)
	}
	if strings.HasPrefix(g.ref, "-") || strings.ContainsAny(g.ref, " \t\n\x00") {
		return "", fmt.Errorf("fetch %s: %q is no branch, tag or commit", said, g.ref)
	}
	commit := g.ref
	if !commitForm.MatchString(commit) {
		var err error
		if commit, err = g.resolve(ctx); err != nil {
			return "", fmt.Errorf("fetch %s: %w", said, err)
		}
	}
	sum := sha256.Sum256([]byte(g.url))
	root, err := f.keep(filepath.Join("git", hex.EncodeToString(sum[:8]), commit), func(into string) error {
		return g.checkout(ctx, commit, into)
	})
	if err != nil {
		return "", fmt.Errorf("fetch %s: %w", said, err)
	}
	file, err := composeFile(root, g.path)
	if err != nil {
		return "", fmt.Errorf("fetch %s: %w", said, err)
	}
	return file, nil
}

// resolve asks the repository for the commit of ref.
func (g repository) resolve(ctx context.Context) (string, error) {
	ref := g.ref
	if ref == "" {
		ref = "HEAD"
	}
	out, err := git(ctx, "", "ls-remote", "--", g.url, ref, ref+"^{}")
	if err != nil {
		return "", err
	}
	found := map[string]string{}
	for line := range strings.Lines(out) {
		if commit, name, ok := strings.Cut(strings.TrimSpace(line), "\t"); ok && commitForm.MatchString(commit) {
			found[name] = commit
		}
	}
	// What an annotated tag points to comes before the tag itself.
	for _, name := range []string{ref, "refs/heads/" + ref, "refs/tags/" + ref + "^{}", "refs/tags/" + ref} {
		if commit := found[name]; commit != "" {
			return commit, nil
		}
	}
	return "", fmt.Errorf("it has no branch or tag %s", ref)
}

func (g repository) checkout(ctx context.Context, commit, into string) error {
	for _, args := range [][]string{
		{"init", "-q"},
		{"fetch", "-q", "--depth", "1", "--no-tags", "--no-recurse-submodules", "--", g.url, commit},
	} {
		if _, err := git(ctx, into, args...); err != nil {
			return err
		}
	}
	// Before it is written out, so that a bomb stays packed.
	sizes, err := git(ctx, into, "ls-tree", "-r", "-l", "FETCH_HEAD")
	if err != nil {
		return err
	}
	var total int64
	for line := range strings.Lines(sizes) {
		if fields := strings.Fields(line); len(fields) > 3 { // mode type object size path
			n, _ := strconv.ParseInt(fields[3], 10, 64) // a submodule has none
			total += n
		}
	}
	if total > maxRepository {
		return fmt.Errorf("its files hold %d MiB; the limit is %d MiB", total>>20, int64(maxRepository)>>20)
	}
	if _, err := git(ctx, into, "checkout", "-q", "--detach", "FETCH_HEAD"); err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join(into, ".git")); err != nil {
		return fmt.Errorf("remove the history: %w", err)
	}
	return nil
}

// git runs the git program in dir. It may not ask, and runs nothing that a
// repository brings: no hooks, no filters of attributes but its own, no
// symbolic links.
func git(ctx context.Context, dir string, args ...string) (string, error) {
	args = append([]string{
		"-c", "protocol.ext.allow=never", "-c", "core.symlinks=false", "-c", "core.hooksPath=/dev/null",
		"-c", "core.fsmonitor=false", "-c", "fetch.fsckObjects=true", "-c", "transfer.fsckObjects=true",
	}, args...)
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = dir
	// Berth may itself run in a hook of another repository.
	outer := slices.DeleteFunc(os.Environ(), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return slices.Contains([]string{"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR", "GIT_NAMESPACE"}, name)
	})
	cmd.Env = slices.Concat(outer, []string{"GIT_TERMINAL_PROMPT=0", "GIT_LFS_SKIP_SMUDGE=1", "LC_ALL=C"})
	if os.Getenv("GIT_SSH_COMMAND") == "" {
		cmd.Env = append(cmd.Env, "GIT_SSH_COMMAND=ssh -o BatchMode=yes")
	}
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	err := cmd.Run()
	if err == nil {
		return out.String(), nil
	}
	if ctx.Err() != nil {
		return "", fmt.Errorf("git took longer than %v", patience)
	}
	text := strings.TrimSpace(said.String())
	if text == "" {
		return "", fmt.Errorf("git: %w", err)
	}
	if i := strings.LastIndex(text, "fatal: "); i >= 0 {
		text = text[i+len("fatal: "):]
	}
	first, _, _ := strings.Cut(text, "\n")
	return "", errors.New("git: " + redactAll(first))
}

var urlInText = regexp.MustCompile(`\S+://[^\s'"]+`)

// redactAll hides the passwords of the URLs in a text.
func redactAll(text string) string { return urlInText.ReplaceAllStringFunc(text, redact) }
