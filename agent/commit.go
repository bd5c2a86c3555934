package agent

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"path/filepath"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/mattn/go-shellwords"

	"berth/api"
	"berth/archive"
	"berth/images"
	"berth/store"
)

func (a *Agent) commitRoutes(h huma.API) {
	huma.Register(h, op(http.MethodPost, "/v1/tasks/{task}/commit", "Make an image of a task"),
		func(ctx context.Context, in *struct {
			TaskPath
			Body api.CommitRequest
		},
		) (*reply[images.Image], error) {
			img, err := a.commitTask(ctx, in.Task, &in.Body)
			return &reply[images.Image]{img}, fail(err)
		})
}

// commitTask makes an image of what a task has written over its own. With Pause
// its processes stand still meanwhile.
func (a *Agent) commitTask(ctx context.Context, name string, req *api.CommitRequest) (images.Image, error) {
	t, err := a.findTask(name)
	if err != nil {
		return images.Image{}, err
	}
	base, err := a.images.Resolve(t.Digest)
	if err != nil {
		return images.Image{}, err
	}
	o := images.CommitOptions{Reference: req.Reference, Author: req.Author, Comment: req.Message, Config: committedConfig(t, base)}
	for _, c := range req.Changes {
		if err := changeConfig(&o.Config, c); err != nil {
			return images.Image{}, err
		}
	}
	upper, err := archive.Open(filepath.Join(a.taskRoot(t.ID), "upper"))
	if errors.Is(err, fs.ErrNotExist) {
		return images.Image{}, conflict("", "%s has no files any more", t.Name())
	}
	if err != nil {
		return images.Image{}, err
	}
	defer upper.Close()
	a.contents.RLock() // nothing collects meanwhile
	defer a.contents.RUnlock()
	img, err := a.images.Commit(ctx, base.Digest, func(w io.Writer) error {
		if req.Pause && t.State == store.StateRunning {
			if err := a.containers.Pause(ctx, t.ID); err != nil {
				return err
			}
			defer a.containers.Resume(context.WithoutCancel(ctx), t.ID) //nolint:errcheck // one that has ended can't go on
		}
		return upper.PackLayer(w)
	}, o)
	if err != nil {
		return images.Image{}, err
	}
	a.events.task(t, "commit", req.Reference)
	return img, nil
}

// committedConfig is the configuration of an image that is run like t.
func committedConfig(t *store.Task, base images.Image) v1.Config {
	c := base.Config
	if t.Spec.Entrypoint != nil {
		c.Entrypoint, c.Cmd = *t.Spec.Entrypoint, nil
	}
	if t.Spec.Command != nil {
		c.Cmd = *t.Spec.Command
	}
	c.User, c.WorkingDir = first(t.Spec.User, c.User), first(t.Spec.WorkingDir, c.WorkingDir)
	labels := maps.Clone(c.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	maps.Copy(labels, t.Spec.Labels)
	c.Labels = labels
	env := make([]string, 0, len(c.Env)+len(t.Spec.Environment))
	for _, e := range environment(&t.Spec, base) {
		env = setEnv(env, e)
	}
	c.Env = env
	return c
}

// setEnv puts KEY=VALUE in the place of an earlier one.
func setEnv(env []string, e string) []string {
	key, _, _ := strings.Cut(e, "=")
	for i, old := range env {
		if strings.HasPrefix(old, key+"=") {
			env[i] = e
			return env
		}
	}
	return append(env, e)
}

// changeConfig applies one instruction of a Dockerfile, of those that `docker
// commit --change` knows.
func changeConfig(c *v1.Config, instruction string) error {
	verb, rest, _ := strings.Cut(strings.TrimSpace(instruction), " ")
	rest = strings.TrimSpace(rest)
	if rest == "" {
		return invalid("change %q: want INSTRUCTION VALUE", instruction)
	}
	switch strings.ToUpper(verb) {
	case "CMD":
		c.Cmd = commandForm(rest)
	case "ENTRYPOINT":
		c.Entrypoint = commandForm(rest)
	case "USER":
		c.User = rest
	case "WORKDIR":
		c.WorkingDir = rest
	case "STOPSIGNAL":
		c.StopSignal = rest
	case "ENV", "LABEL":
		return changePairs(c, strings.ToUpper(verb), rest)
	case "EXPOSE", "VOLUME":
		changeSet(c, strings.ToUpper(verb), rest)
	case "ONBUILD":
		c.OnBuild = append(c.OnBuild, rest)
	default:
		return invalid("change %q: use CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME or WORKDIR", instruction)
	}
	return nil
}

// commandForm reads a JSON list or, else, a line for the shell.
func commandForm(text string) []string {
	var list []string
	if json.Unmarshal([]byte(text), &list) == nil {
		return list
	}
	return []string{"/bin/sh", "-c", text}
}

// changePairs reads KEY=VALUE …, or the old form KEY VALUE.
func changePairs(c *v1.Config, verb, text string) error {
	words, err := shellwords.Parse(text)
	if err != nil {
		return invalid("change %s %s: %v", verb, text, err)
	}
	if !strings.Contains(words[0], "=") {
		key, value, _ := strings.Cut(text, " ")
		words = []string{key + "=" + strings.TrimSpace(value)}
	}
	for _, w := range words {
		key, value, ok := strings.Cut(w, "=")
		switch {
		case !ok || key == "":
			return invalid("change %s %s: want KEY=VALUE", verb, text)
		case verb == "ENV":
			c.Env = setEnv(c.Env, w)
		default:
			c.Labels[key] = value
		}
	}
	return nil
}

func changeSet(c *v1.Config, verb, text string) {
	var words []string
	if json.Unmarshal([]byte(text), &words) != nil {
		words = strings.Fields(text)
	}
	set := maps.Clone(c.Volumes)
	if verb == "EXPOSE" {
		set = maps.Clone(c.ExposedPorts)
	}
	if set == nil {
		set = map[string]struct{}{}
	}
	for _, w := range words {
		if verb == "EXPOSE" && !strings.Contains(w, "/") {
			w += "/tcp"
		}
		set[w] = struct{}{}
	}
	if verb == "EXPOSE" {
		c.ExposedPorts = set
	} else {
		c.Volumes = set
	}
}
