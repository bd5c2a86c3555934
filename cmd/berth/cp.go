package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"berth/api"
	"berth/archive"
)

type cpOptions struct {
	archive, followLink, all bool
	index                    int
}

func newCp(a *app) *cobra.Command {
	var o cpOptions
	cmd := &cobra.Command{
		Use:   "cp [flags] SERVICE:SRC_PATH DEST_PATH|-\n  berth cp [flags] SRC_PATH|- SERVICE:DEST_PATH",
		Short: "Copy files between a container and this machine",
		Long: `Copy a file or a folder from a container of a service to this machine,
or the other way round, then to every container of the service. - is a
tar on stdin or stdout. SRC_PATH/. copies what is in the folder, not the
folder.

Links in the container lead where they do for its programs, never out of
it. What is copied into it is root's, and here yours, unless --archive
keeps the owners.` + exitStatus(),
		Example: `  berth cp web:/etc/nginx/nginx.conf .
  berth cp ./html/. web:/usr/share/nginx/html
  berth cp db:/var/lib/data - | gzip > data.tar.gz`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error { return a.cp(cmd.Context(), o, args[0], args[1]) },
	}
	f := cmd.Flags()
	f.BoolVarP(&o.archive, "archive", "a", false, "keep owners")
	f.BoolVarP(&o.followLink, "follow-link", "L", false, "copy what a link at SRC_PATH leads to, not the link")
	f.BoolVar(&o.all, "all", false, "into containers of berth run, too")
	f.IntVar(&o.index, "index", 0, "of the task with this `NUMBER` (default: from the first that runs, to all)")
	return cmd
}

// placed splits SERVICE:PATH; what begins like a path is one.
func placed(arg string) (service, path string, ok bool) {
	if strings.HasPrefix(arg, ".") || strings.HasPrefix(arg, "/") {
		return "", arg, false
	}
	return strings.Cut(arg, ":")
}

func (a *app) cp(ctx context.Context, o cpOptions, from, to string) error {
	fromService, fromPath, out := placed(from)
	toService, toPath, in := placed(to)
	switch {
	case out && in:
		return errors.New("copying between services is not supported: copy to this machine first")
	case out:
		client, task, err := a.serviceTask(ctx, fromService, o.index)
		if err != nil {
			return err
		}
		return a.copyOut(ctx, client, task.ID, o, fromPath, to)
	case in:
		client, tasks, err := a.copyTargets(ctx, toService, o)
		if err != nil {
			return err
		}
		return a.copyIn(ctx, client, tasks, o, from, toPath)
	}
	return hinted{errors.New("neither of the paths is in a container"), "write one of them as SERVICE:PATH"}
}

// copyTargets are the running tasks of a service that files are copied to.
func (a *app) copyTargets(ctx context.Context, service string, o cpOptions) (*api.Client, []api.Task, error) {
	name, client, err := a.stackAgent(ctx)
	if err != nil {
		return nil, nil, err
	}
	stack, err := client.Stack(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	first, err := runningTask(stack, service, o.index)
	if err != nil || o.index > 0 {
		return client, []api.Task{first}, err
	}
	tasks := slices.DeleteFunc(slices.Clone(stack.Tasks), func(t api.Task) bool {
		return t.Service != service || t.State != api.TaskRunning || t.OneOff && !o.all
	})
	if len(tasks) == 0 {
		tasks = []api.Task{first}
	}
	return client, tasks, nil
}

// copyOut copies a path of a task to this machine.
func (a *app) copyOut(ctx context.Context, client *api.Client, task string, o cpOptions, from, to string) error {
	src, err := client.StatPath(ctx, task, from, o.followLink || contentOnly(from))
	if err != nil {
		return err
	}
	if to == "-" {
		if isTerminal(a.stdout) {
			return hinted{errors.New("a tar is nothing for a terminal"), "redirect stdout"}
		}
		return client.ReadPath(ctx, task, src.Path, false, a.stdout)
	}
	folder, rename, err := landing(src.Path, src.Dir, contentOnly(from), to, localKind(to))
	if err != nil {
		return err
	}
	if rename.makes != "" {
		if err := os.MkdirAll(filepath.Join(folder, rename.makes), 0o755); err != nil {
			return fmt.Errorf("make %s: %w", to, err)
		}
	}
	root, err := archive.Open(folder)
	if err != nil {
		return err
	}
	defer root.Close()
	r, w := io.Pipe()
	go func() { w.CloseWithError(client.ReadPath(ctx, task, src.Path, false, w)) }()
	defer r.Close()
	return root.Unpack(r, "/", archive.Options{Owner: o.archive, UID: os.Getuid(), GID: os.Getgid(), Rename: rename.apply})
}

// copyIn copies a path of this machine, or a tar on stdin, into tasks.
func (a *app) copyIn(ctx context.Context, client *api.Client, tasks []api.Task, o cpOptions, from, to string) error {
	if from == "-" {
		if len(tasks) > 1 {
			return hinted{errors.New("stdin can be read only once, and the service has several containers"), "choose one with --index"}
		}
		return client.WritePath(ctx, tasks[0].ID, to, true, a.stdin)
	}
	for _, t := range tasks {
		if err := copyInto(ctx, client, t.ID, o, from, to); err != nil {
			return fmt.Errorf("copy to %s: %w", t.Name, err)
		}
	}
	return nil
}

func copyInto(ctx context.Context, client *api.Client, task string, o cpOptions, from, to string) error {
	abs, err := filepath.Abs(from)
	if err != nil {
		return err
	}
	look := os.Lstat
	if o.followLink || contentOnly(from) || strings.HasSuffix(from, "/") {
		look = os.Stat
		if abs, err = filepath.EvalSymlinks(abs); err != nil {
			return err
		}
	}
	fi, err := look(abs)
	if err != nil {
		return err
	}
	kind, target, err := remoteKind(ctx, client, task, to)
	if err != nil {
		return err
	}
	folder, rename, err := landing(abs, fi.IsDir(), contentOnly(from), target, kind)
	if err != nil {
		return err
	}
	root, err := archive.Open("/")
	if err != nil {
		return err
	}
	defer root.Close()
	return sendTree(ctx, client, task, folder, o.archive, root, abs, rename)
}

// sendTree sends one path of root into a folder of a task.
func sendTree(ctx context.Context, client *api.Client, task, folder string, owner bool, root *archive.Root, path string, rename renaming) error {
	r, w := io.Pipe()
	go func() {
		w.CloseWithError(archive.Rename(w, func(w io.Writer) error { return root.Pack(w, path, false) }, rename.makes, rename.apply))
	}()
	defer r.Close()
	return client.WritePath(ctx, task, folder, owner, r)
}

// contentOnly says that a source is what is in a folder.
func contentOnly(path string) bool { return path == "." || strings.HasSuffix(path, "/.") }

// Kinds of what is where files are copied to.
const (
	isMissing = iota
	isFile
	isDir
)

func localKind(path string) int {
	fi, err := os.Stat(path)
	switch {
	case err != nil:
		return isMissing
	case fi.IsDir():
		return isDir
	}
	return isFile
}

// remoteKind says what there is at a path of a task, and where it lies once
// links are followed.
func remoteKind(ctx context.Context, client *api.Client, task, path string) (int, string, error) {
	st, err := client.StatPath(ctx, task, path, true)
	switch {
	case api.HasCode(err, api.CodeNotFound):
		return isMissing, path, nil
	case err != nil:
		return 0, "", err
	case st.Dir:
		return isDir, st.Path, nil
	}
	return isFile, st.Path, nil
}

// renaming puts the entries of a tree under another first name; "": what is in
// the tree, not the tree.
type renaming struct {
	from, to string
	makes    string // a folder that has to be made first
}

func (r renaming) apply(name string) string {
	rest, below := strings.CutPrefix(name, r.from+"/")
	switch {
	case r.from == ".": // the root: its entries have no first name
		rest, below = name, name != "."
	case name != r.from && !below:
		return ""
	}
	if !below {
		return r.to
	}
	return filepath.Join(r.to, rest)
}

// landing is the folder that a source is unpacked into, and its name there, by
// the rules of `docker cp`: into a folder that is there, else under the name
// that was given.
func landing(src string, dir, content bool, to string, kind int) (folder string, r renaming, err error) {
	base := filepath.Base(src)
	if base == "/" {
		base, content = ".", true
	}
	r = renaming{from: base, to: base}
	switch {
	case kind == isDir && content:
		r.to = ""
		return to, r, nil
	case kind == isDir:
		return to, r, nil
	case dir && kind == isFile:
		return "", r, fmt.Errorf("%s is a folder, and %s is a file", src, to)
	case !dir && kind == isMissing && strings.HasSuffix(to, "/"):
		return "", r, fmt.Errorf("there is no folder %s", to)
	}
	clean := filepath.Clean(to)
	r.to = filepath.Base(clean)
	if dir {
		r.makes = r.to
	}
	return filepath.Dir(clean), r, nil
}
