package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"time"
)

// Image is images.Image as a client sees it. It is a type of its own so that
// a client does not link the image store.
type Image struct {
	Digest     string    `json:"digest"` // of the platform's manifest: sha256:…
	ID         string    `json:"id"`     // digest of the config, as Docker shows it
	References []string  `json:"references,omitempty"`
	Platform   string    `json:"platform"` // os/arch[/variant]
	Created    time.Time `json:"created"`
	Size       int64     `json:"size"`   // compressed bytes
	Layers     []string  `json:"layers"` // diff ids, base first
	// Config is the image's OCI configuration: entrypoint, env, user …
	Config json.RawMessage `json:"config,omitempty"`
}

// Images lists the images of the agent's store.
func (c *Client) Images(ctx context.Context) ([]Image, error) {
	return call[[]Image](ctx, c, request{method: http.MethodGet, path: "/v1/images"})
}

// InspectImage finds an image by reference, digest or a unique prefix of its
// id.
func (c *Client) InspectImage(ctx context.Context, ref string) (Image, error) {
	return call[Image](ctx, c, request{method: http.MethodGet, path: "/v1/images/inspect", query: url.Values{"ref": {ref}}})
}

// PullImage pulls one image and yields its progress.
func (c *Client) PullImage(ctx context.Context, req ImagePullRequest) iter.Seq2[Progress, error] {
	return progress(ctx, c, request{method: http.MethodPost, path: "/v1/images/pull", body: req})
}

// LoadImages sends an archive as `docker save` or `skopeo` write it, and
// yields what was loaded.
func (c *Client) LoadImages(ctx context.Context, archive io.Reader) iter.Seq2[Progress, error] {
	return progress(ctx, c, request{method: http.MethodPost, path: "/v1/images/load", body: io.NopCloser(archive)})
}

// SaveImages writes the images as one docker-archive to w.
func (c *Client) SaveImages(ctx context.Context, w io.Writer, refs []string) error {
	resp, err := c.do(ctx, request{method: http.MethodGet, path: "/v1/images/save", query: url.Values{"ref": refs}})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(w, resp.Body); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = ErrCut
		}
		return fmt.Errorf("save images: %w", err)
	}
	return nil
}

// RemoveImage takes a reference away and, with its last one, the image. An
// image that a kept revision needs is CodeInUse.
func (c *Client) RemoveImage(ctx context.Context, ref string, force bool) (ImageRemoved, error) {
	q := url.Values{"ref": {ref}}
	setBool(q, "force", force)
	return call[ImageRemoved](ctx, c, request{method: http.MethodDelete, path: "/v1/images", query: q})
}

// ImagePrune says which of the images that nothing needs go.
type ImagePrune struct {
	All bool // also those with a reference
	// Until keeps what was made since: RFC 3339, or a duration before now.
	Until string
	// Labels, KEY or KEY=VALUE, that an image must have.
	Labels []string
}

// PruneImages removes images without a reference or, with All, those that no
// kept revision needs.
func (c *Client) PruneImages(ctx context.Context, p ImagePrune) (ImageRemoved, error) {
	q := url.Values{}
	setBool(q, "all", p.All)
	setText(q, "until", p.Until)
	if len(p.Labels) > 0 {
		q["label"] = p.Labels
	}
	return call[ImageRemoved](ctx, c, request{method: http.MethodPost, path: "/v1/images/prune", query: q})
}
