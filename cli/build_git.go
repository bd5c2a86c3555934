package cli

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// isGit says that a context is a Git repository, as BuildKit decides it.
func isGit(source string) bool {
	for _, prefix := range []string{"git://", "git@", "ssh://", "github.com/"} {
		if strings.HasPrefix(source, prefix) {
			return true
		}
	}
	url, _, _ := strings.Cut(source, "#")
	return strings.HasSuffix(url, ".git") && (strings.HasPrefix(url, "http://") || strings.HasPrefix(url, "https://"))
}

// cloneGit fetches URL[#REF[:FOLDER]] with the user's git: its credentials and
// known hosts are the user's. dir is the folder below root, which the caller
// removes.
func cloneGit(ctx context.Context, source string) (dir, root string, err error) {
	url, part, _ := strings.Cut(source, "#")
	ref, folder, _ := strings.Cut(part, ":")
	if strings.HasPrefix(url, "github.com/") {
		url = "https://" + url
	}
	ref = cmp.Or(ref, "HEAD")
	folder = strings.TrimPrefix(cmp.Or(folder, "."), "/")
	if strings.HasPrefix(ref, "-") || strings.HasPrefix(url, "-") || !filepath.IsLocal(folder) {
		return "", "", fmt.Errorf("build context %s: %w", source, errGitRef)
	}
	if _, err := exec.LookPath("git"); err != nil {
		return "", "", fmt.Errorf("build context %s: git is not installed; apt-get install git", source)
	}
	if root, err = os.MkdirTemp("", "berth-git-"); err != nil {
		return "", "", fmt.Errorf("clone %s: %w", source, err)
	}
	git := func(args ...string) error {
		cmd := exec.CommandContext(ctx, "git", append([]string{"-C", root}, args...)...)
		cmd.Env = append(os.Environ(), "GIT_TERMINAL_PROMPT=0")
		var said bytes.Buffer
		cmd.Stdout, cmd.Stderr = &said, &said
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("clone %s: git %s: %w: %s", source, args[0], err, strings.TrimSpace(said.String()))
		}
		return nil
	}
	if err := git("init", "-q"); err != nil {
		return "", root, err
	}
	if shallow := git("fetch", "-q", "--depth", "1", "--no-tags", "--", url, ref); shallow != nil {
		// Some servers give a commit only with all that it comes from.
		if err := git("fetch", "-q", "--", url, "+refs/*:refs/remotes/origin/*"); err != nil {
			return "", root, errors.Join(shallow)
		}
		err = git("checkout", "-q", "--detach", ref)
	} else {
		err = git("checkout", "-q", "--detach", "FETCH_HEAD")
	}
	if err != nil {
		return "", root, err
	}
	if _, err := os.Stat(filepath.Join(root, ".gitmodules")); err == nil {
		if err := git("submodule", "update", "-q", "--init", "--recursive", "--depth", "1"); err != nil {
			return "", root, err
		}
	}
	if err := os.RemoveAll(filepath.Join(root, ".git")); err != nil {
		return "", root, err
	}
	real, err := filepath.EvalSymlinks(filepath.Join(root, folder))
	if err != nil {
		return "", root, fmt.Errorf("build context %s: %w", source, err)
	}
	top, err := filepath.EvalSymlinks(root)
	if rel, relErr := filepath.Rel(top, real); err != nil || relErr != nil || !filepath.IsLocal(rel) {
		return "", root, fmt.Errorf("build context %s: the folder leads out of the repository", source)
	}
	return real, root, nil
}

var errGitRef = errors.New("the part behind # is REF:FOLDER, a branch, tag or commit and a folder of the repository")
