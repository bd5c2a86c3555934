package agent

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"berth/api"
	"berth/images"
)

// registryRoutes are about what goes to registries, and what is asked of them.
// Credentials of a request are used for it and forgotten.
func (a *Agent) registryRoutes(h huma.API) {
	huma.Register(h, op(http.MethodPost, "/v1/registries/login", "Ask a registry whether it takes credentials"),
		func(ctx context.Context, in *struct{ Body api.LoginRequest }) (*struct{}, error) {
			err := a.images.Login(ctx, in.Body.Registry, in.Body.Auth.Username, in.Body.Auth.Password)
			return nil, fail(registryError(err))
		})
	huma.Register(h, op(http.MethodPost, "/v1/images/push", "Send an image to its registry"),
		func(_ context.Context, in *struct{ Body api.ImagePushRequest }) (*huma.StreamResponse, error) {
			return progressed(func(ctx context.Context, report func(api.Progress)) (*api.Done, error) {
				return a.pushImage(ctx, &in.Body, report)
			}), nil
		})
	huma.Register(h, op(http.MethodPost, "/v1/images/tag", "Give an image another reference"),
		func(_ context.Context, in *struct{ Body api.ImageTagRequest }) (*struct{}, error) {
			if _, err := a.images.Resolve(in.Body.Source); err != nil {
				return nil, fail(err)
			}
			if err := a.images.Tag(in.Body.Target, in.Body.Source); err != nil {
				return nil, fail(err)
			}
			a.events.emit(apiEvent{Type: "image", Action: "tag", Name: in.Body.Target})
			return nil, nil
		})
	huma.Register(h, op(http.MethodPost, "/v1/images/digests", "Ask registries what references mean now"),
		func(ctx context.Context, in *struct{ Body api.ImageDigestsRequest }) (*reply[map[string]string], error) {
			out, err := a.imageDigests(ctx, &in.Body)
			return &reply[map[string]string]{out}, fail(registryError(err))
		})
	huma.Register(h, op(http.MethodGet, "/v1/images/history", "Tell how an image came to be"),
		func(_ context.Context, in *struct {
			Ref string `query:"ref"`
		},
		) (*reply[[]images.Step], error) {
			steps, err := a.images.History(in.Ref)
			return &reply[[]images.Step]{steps}, fail(err)
		})
}

// registryError is imageError, nil for nil.
func registryError(err error) error {
	if err == nil {
		return nil
	}
	return imageError(err)
}

// authFor are the caller's credentials for the registry of ref; nil means the
// agent's own.
func authFor(auth api.Auths, ref string) func(string) (string, string, bool) {
	host, err := images.RegistryOf(ref)
	if err != nil {
		return nil // whoever uses ref says what is wrong with it
	}
	return auth.Of(host)
}

func (a *Agent) pushImage(ctx context.Context, req *api.ImagePushRequest, report func(api.Progress)) (*api.Done, error) {
	digest, err := a.images.Push(ctx, req.Reference, images.PullOptions{
		Auth:     authFor(req.Auth, req.Reference),
		Progress: func(p images.Progress) { report(api.Progress{Pull: (*api.PullProgress)(&p)}) },
	})
	if err != nil {
		return nil, imageError(err)
	}
	a.events.emit(apiEvent{Type: "image", Action: "push", Name: req.Reference})
	report(api.Progress{Message: req.Reference + " " + digest})
	return &api.Done{Outcome: api.OutcomeDone}, nil
}

func (a *Agent) imageDigests(ctx context.Context, req *api.ImageDigestsRequest) (map[string]string, error) {
	out := map[string]string{}
	for _, ref := range req.References {
		digest, err := a.images.Digest(ctx, ref, images.PullOptions{Auth: authFor(req.Auth, ref)})
		if err != nil {
			return nil, err
		}
		if out[ref], err = images.Pinned(ref, digest); err != nil {
			return nil, err
		}
	}
	return out, nil
}
