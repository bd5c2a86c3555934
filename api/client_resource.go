package api

import (
	"context"
	"net/http"
	"net/url"
)

// Volumes lists the volumes of a stack, or all with stack "".
func (c *Client) Volumes(ctx context.Context, stack string) ([]Volume, error) {
	q := url.Values{}
	setText(q, "stack", stack)
	return call[[]Volume](ctx, c, request{method: http.MethodGet, path: "/v1/volumes", query: q})
}

// CreateVolume makes a volume; one that exists with the same options is
// returned as it is.
func (c *Client) CreateVolume(ctx context.Context, req VolumeCreate) (Volume, error) {
	return call[Volume](ctx, c, request{method: http.MethodPost, path: "/v1/volumes", body: req})
}

// RemoveVolume deletes a volume with its data. One in use is CodeInUse; with
// force, one that does not exist is success.
func (c *Client) RemoveVolume(ctx context.Context, name string, force bool) error {
	q := url.Values{}
	setBool(q, "force", force)
	return c.send(ctx, request{method: http.MethodDelete, path: "/v1/volumes/" + url.PathEscape(name), query: q})
}

// PruneVolumes deletes the anonymous volumes that no task uses or, with all,
// the named ones too.
func (c *Client) PruneVolumes(ctx context.Context, all bool) (Removed, error) {
	q := url.Values{}
	setBool(q, "all", all)
	return call[Removed](ctx, c, request{method: http.MethodPost, path: "/v1/volumes/prune", query: q})
}

// Networks lists the networks of a stack, or all with stack "".
func (c *Client) Networks(ctx context.Context, stack string) ([]Network, error) {
	q := url.Values{}
	setText(q, "stack", stack)
	return call[[]Network](ctx, c, request{method: http.MethodGet, path: "/v1/networks", query: q})
}

// CreateNetwork makes a network that stacks can name as external.
func (c *Client) CreateNetwork(ctx context.Context, req NetworkCreate) (Network, error) {
	return call[Network](ctx, c, request{method: http.MethodPost, path: "/v1/networks", body: req})
}

// RemoveNetwork deletes a network. One with tasks on it is CodeInUse.
func (c *Client) RemoveNetwork(ctx context.Context, name string) error {
	return c.send(ctx, request{method: http.MethodDelete, path: "/v1/networks/" + url.PathEscape(name)})
}

// PruneNetworks deletes the networks that no stack and no task uses.
func (c *Client) PruneNetworks(ctx context.Context) (Removed, error) {
	return call[Removed](ctx, c, request{method: http.MethodPost, path: "/v1/networks/prune"})
}
