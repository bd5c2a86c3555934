package api

import (
	"context"
	"iter"
	"net/http"
	"net/url"
)

func contentPath(kind, name, rest string) string {
	return "/v1/contents/" + url.PathEscape(kind) + "/" + url.PathEscape(name) + rest
}

// Contents lists the secrets or configs of the store: those of a stack and the
// ones for all stacks, or all with stack "".
func (c *Client) Contents(ctx context.Context, kind, stack string) ([]Content, error) {
	q := url.Values{}
	setText(q, "stack", stack)
	return call[[]Content](ctx, c, request{method: http.MethodGet, path: "/v1/contents/" + url.PathEscape(kind), query: q})
}

// InspectContent describes one; stack "" is the one for all stacks.
func (c *Client) InspectContent(ctx context.Context, kind, stack, name string) (Content, error) {
	q := url.Values{}
	setText(q, "stack", stack)
	return call[Content](ctx, c, request{method: http.MethodGet, path: contentPath(kind, name, ""), query: q})
}

// SetContent stores a new version. Nothing that runs is changed.
func (c *Client) SetContent(ctx context.Context, kind string, req ContentSet) (Content, error) {
	return call[Content](ctx, c, request{method: http.MethodPost, path: "/v1/contents/" + url.PathEscape(kind), body: req})
}

// RemoveContent removes one with all its versions; CodeInUse while the wanted
// revision of a stack uses it.
func (c *Client) RemoveContent(ctx context.Context, kind, stack, name string) error {
	q := url.Values{}
	setText(q, "stack", stack)
	return c.send(ctx, request{method: http.MethodDelete, path: contentPath(kind, name, ""), query: q})
}

// RollContent changes the version and rolls what uses it.
func (c *Client) RollContent(ctx context.Context, kind, name string, req ContentRoll) iter.Seq2[Progress, error] {
	return progress(ctx, c, request{method: http.MethodPost, path: contentPath(kind, name, "/roll"), body: req})
}

// RekeyContents encrypts the store to a new identity.
func (c *Client) RekeyContents(ctx context.Context) error {
	return c.send(ctx, request{method: http.MethodPost, path: "/v1/contents/rekey"})
}

// ContentRecipients are what files may be encrypted to for the agent's host.
func (c *Client) ContentRecipients(ctx context.Context) ([]ContentRecipient, error) {
	return call[[]ContentRecipient](ctx, c, request{method: http.MethodPost, path: "/v1/contents/recipients"})
}

// ExportContents returns the whole store as an age file.
func (c *Client) ExportContents(ctx context.Context, req ContentExport) ([]byte, error) {
	archive, err := call[ContentArchive](ctx, c, request{method: http.MethodPost, path: "/v1/contents/export", body: req})
	return archive.Data, err
}

// ImportContents brings an export back and returns what changed.
func (c *Client) ImportContents(ctx context.Context, req ContentImport) ([]Content, error) {
	return call[[]Content](ctx, c, request{method: http.MethodPost, path: "/v1/contents/import", body: req})
}
