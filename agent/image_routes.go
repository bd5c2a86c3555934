package agent

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"berth/api"
	"berth/images"
)

func (a *Agent) imageRoutes(h huma.API, mux *http.ServeMux) {
	huma.Register(h, op(http.MethodGet, "/v1/images", "List images"),
		func(context.Context, *struct{}) (*reply[[]images.Image], error) {
			list, err := a.images.List()
			if list == nil {
				list = []images.Image{}
			}
			return &reply[[]images.Image]{list}, fail(err)
		})
	huma.Register(h, op(http.MethodGet, "/v1/images/inspect", "Show an image"),
		func(_ context.Context, in *struct {
			Ref string `query:"ref"`
		},
		) (*reply[images.Image], error) {
			img, err := a.images.Resolve(in.Ref)
			return &reply[images.Image]{img}, fail(err)
		})
	huma.Register(h, op(http.MethodPost, "/v1/images/pull", "Pull an image"),
		func(_ context.Context, in *struct{ Body api.ImagePullRequest }) (*huma.StreamResponse, error) {
			return progressed(func(ctx context.Context, report func(api.Progress)) (*api.Done, error) {
				return a.pullImage(ctx, &in.Body, report)
			}), nil
		})
	huma.Register(h, op(http.MethodDelete, "/v1/images", "Remove an image"),
		func(_ context.Context, in *struct {
			Ref   string `query:"ref"`
			Force bool   `query:"force"`
		},
		) (*reply[api.ImageRemoved], error) {
			r, err := a.collect(func(pinned map[string]bool) (images.Removed, error) {
				return a.images.Remove(in.Ref, in.Force, pinned)
			})
			return &reply[api.ImageRemoved]{api.ImageRemoved(r)}, fail(err)
		})
	huma.Register(h, op(http.MethodPost, "/v1/images/prune", "Remove unused images"),
		func(_ context.Context, in *struct {
			All   bool     `query:"all"`
			Until string   `query:"until"`
			Label []string `query:"label,explode"`
		},
		) (*reply[api.ImageRemoved], error) {
			r, err := a.collect(func(pinned map[string]bool) (images.Removed, error) {
				if err := a.spare(pinned, in.Until, in.Label); err != nil {
					return images.Removed{}, err
				}
				return a.images.Prune(in.All, pinned)
			})
			return &reply[api.ImageRemoved]{api.ImageRemoved(r)}, fail(err)
		})
	// Archives are bytes of any length: they pass huma by.
	plain(h, mux, op(http.MethodPost, "/v1/images/load", "Load images from an archive"), "200", func(w http.ResponseWriter, r *http.Request) {
		body := r.Body
		load := working(func(ctx context.Context, report func(api.Progress)) (*api.Done, error) {
			// The client sees how much it has sent: what matters is what came of it.
			got, err := a.images.Load(ctx, body, func(images.Progress) {})
			if err != nil {
				return nil, err
			}
			for _, img := range got {
				name := img.Digest
				if len(img.References) > 0 {
					name = images.Familiar(img.References[0])
				}
				a.events.emit(apiEvent{Type: "image", Action: "load", Name: name})
				report(api.Progress{Message: "loaded " + name})
			}
			return &api.Done{Outcome: api.OutcomeDone}, nil
		})
		w.Header().Set("Content-Type", ndjson)
		load.stream().write(r.Context(), w)
	})
	plain(h, mux, op(http.MethodGet, "/v1/images/save", "Save images as an archive"), "200", func(w http.ResponseWriter, r *http.Request) {
		refs := r.URL.Query()["ref"]
		for _, ref := range refs {
			if _, err := a.images.Resolve(ref); err != nil {
				refuse(w, err)
				return
			}
		}
		w.Header().Set("Content-Type", "application/x-tar")
		if err := a.images.Save(r.Context(), w, refs); err != nil {
			a.log.Error("save images", "err", err)
			panic(http.ErrAbortHandler) // a cut stream, not a short archive that looks whole
		}
	})
}

// spare adds to pinned the images that were made since until, or lack a label.
func (a *Agent) spare(pinned map[string]bool, until string, labels []string) error {
	if until == "" && len(labels) == 0 {
		return nil
	}
	limit := time.Now()
	if until != "" {
		if d, err := time.ParseDuration(until); err == nil {
			limit = limit.Add(-d)
		} else if limit, err = time.Parse(time.RFC3339, until); err != nil {
			return invalid("until %q: want a duration such as 24h, or 2006-01-02T15:04:05Z", until)
		}
	}
	list, err := a.images.List()
	if err != nil {
		return err
	}
	for _, img := range list {
		if img.Created.After(limit) {
			pinned[img.Digest] = true
		}
		for _, l := range labels {
			key, value, exact := strings.Cut(l, "=")
			has, ok := img.Config.Labels[key]
			if !ok || exact && has != value {
				pinned[img.Digest] = true
			}
		}
	}
	return nil
}

// collect removes images that no revision and no task needs. An apply that is
// under way has images that no record names yet: it is not the time then.
func (a *Agent) collect(remove func(pinned map[string]bool) (images.Removed, error)) (images.Removed, error) {
	if !a.contents.TryLock() {
		return images.Removed{}, &api.Error{
			Status: http.StatusConflict, Code: api.CodeConflict, Detail: "a stack is being deployed, and its images are not recorded yet",
			Hint: "try again when that has ended",
		}
	}
	defer a.contents.Unlock()
	pinned, err := a.pinned()
	if err != nil {
		return images.Removed{}, err
	}
	return remove(pinned)
}

func (a *Agent) pullImage(ctx context.Context, req *api.ImagePullRequest, report func(api.Progress)) (*api.Done, error) {
	o := images.PullOptions{
		Platform: req.Platform, Policy: images.Policy(either(req.Policy, string(images.PullAlways))),
		Progress: func(p images.Progress) { report(api.Progress{Pull: (*api.PullProgress)(&p)}) },
	}
	o.Auth = authFor(req.Auth, req.Reference)
	img, err := a.images.Pull(ctx, req.Reference, o)
	if err != nil {
		return nil, imageError(err)
	}
	a.events.emit(apiEvent{Type: "image", Action: "pull", Name: req.Reference})
	report(api.Progress{Message: req.Reference + " " + img.Digest})
	return &api.Done{Outcome: api.OutcomeDone}, nil
}
