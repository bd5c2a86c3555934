package api

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"time"
)

// Auths are credentials by registry host ("docker.io" for the default one).
// They are for one request: never stored, never logged.
type Auths map[string]RegistryAuth

// Of gives the credentials for a registry, in the form that images.PullOptions
// wants; nil when there are none and the agent's own are to be used.
func (a Auths) Of(host string) func(string) (username, password string, ok bool) {
	auth, ok := a[host]
	if !ok {
		return nil
	}
	return func(asked string) (string, string, bool) { return auth.Username, auth.Password, asked == host }
}

// LoginRequest asks whether a registry takes these credentials.
type LoginRequest struct {
	Registry string       `json:"registry"`
	Auth     RegistryAuth `json:"auth"`
}

// ImagePushRequest sends an image to the registry that its reference names.
type ImagePushRequest struct {
	Reference string `json:"reference"`
	Auth      Auths  `json:"auth,omitempty"`
}

// ImageTagRequest gives an image another reference.
type ImageTagRequest struct {
	Source string `json:"source"`
	Target string `json:"target"`
}

// ImageDigestsRequest asks registries what references mean there now.
type ImageDigestsRequest struct {
	References []string `json:"references"`
	Auth       Auths    `json:"auth,omitempty"`
}

// ImageStep is one line of an image's history.
type ImageStep struct {
	Created   time.Time `json:"created,omitzero"`
	CreatedBy string    `json:"created_by"`
	Comment   string    `json:"comment,omitempty"`
	Size      int64     `json:"size"`            // bytes; 0 for a step without a layer
	Layer     string    `json:"layer,omitempty"` // diff id
}

// Login asks the registry whether it takes the credentials.
func (c *Client) Login(ctx context.Context, req LoginRequest) error {
	return c.send(ctx, request{method: http.MethodPost, path: "/v1/registries/login", body: req})
}

// PushImage sends one image to its registry and yields its progress.
func (c *Client) PushImage(ctx context.Context, req ImagePushRequest) iter.Seq2[Progress, error] {
	return progress(ctx, c, request{method: http.MethodPost, path: "/v1/images/push", body: req})
}

// TagImage gives an image another reference.
func (c *Client) TagImage(ctx context.Context, source, target string) error {
	return c.send(ctx, request{method: http.MethodPost, path: "/v1/images/tag", body: ImageTagRequest{source, target}})
}

// ImageDigests gives each reference with the digest that it has at its
// registry now: "nginx:1.28" is "docker.io/library/nginx:1.28@sha256:…".
func (c *Client) ImageDigests(ctx context.Context, req ImageDigestsRequest) (map[string]string, error) {
	return call[map[string]string](ctx, c, request{method: http.MethodPost, path: "/v1/images/digests", body: req})
}

// ImageHistory tells how an image came to be, the last step first.
func (c *Client) ImageHistory(ctx context.Context, ref string) ([]ImageStep, error) {
	return call[[]ImageStep](ctx, c, request{method: http.MethodGet, path: "/v1/images/history", query: url.Values{"ref": {ref}}})
}
