package agent

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"berth/api"
	"berth/secrets"
)

// ContentPath is the path of a request about one content. It is exported for
// huma, which fills embedded fields only then.
type ContentPath struct {
	Kind  string `path:"kind"`
	Name  string `path:"name"`
	Stack string `query:"stack"`
}

// maxImport is what the largest export needs in base64.
const maxImport = 400 << 20

func (a *Agent) contentRoutes(h huma.API) {
	huma.Register(h, op(http.MethodGet, "/v1/contents/{kind}", "List secrets or configs"),
		func(_ context.Context, in *struct {
			Kind  string `path:"kind"`
			Stack string `query:"stack"`
		},
		) (*reply[[]api.Content], error) {
			list, err := a.listContents(in.Kind, in.Stack)
			return &reply[[]api.Content]{list}, fail(err)
		})
	huma.Register(h, op(http.MethodPost, "/v1/contents/{kind}", "Store a new version of a secret or config"),
		func(_ context.Context, in *struct {
			Kind string `path:"kind"`
			Body api.ContentSet
		},
		) (*reply[*api.Content], error) {
			if _, _, err := a.setContent(in.Kind, &in.Body); err != nil {
				return nil, fail(err)
			}
			c, err := a.inspectContent(in.Kind, in.Body.Stack, in.Body.Name)
			return &reply[*api.Content]{c}, fail(err)
		})
	huma.Register(h, op(http.MethodGet, "/v1/contents/{kind}/{name}", "Describe a secret or config"),
		func(_ context.Context, in *ContentPath) (*reply[*api.Content], error) {
			c, err := a.inspectContent(in.Kind, in.Stack, in.Name)
			return &reply[*api.Content]{c}, fail(err)
		})
	huma.Register(h, op(http.MethodDelete, "/v1/contents/{kind}/{name}", "Remove a secret or config"),
		func(_ context.Context, in *ContentPath) (*struct{}, error) {
			return nil, fail(a.removeContent(in.Kind, in.Stack, in.Name))
		})
	huma.Register(h, op(http.MethodPost, "/v1/contents/{kind}/{name}/roll", "Roll what uses a secret or config to another version"),
		func(_ context.Context, in *struct {
			Kind string `path:"kind"`
			Name string `path:"name"`
			Body api.ContentRoll
		},
		) (*huma.StreamResponse, error) {
			return progressed(func(ctx context.Context, report func(api.Progress)) (*api.Done, error) {
				return a.rollContent(ctx, in.Kind, in.Name, &in.Body, report)
			}), nil
		})
	huma.Register(h, op(http.MethodPost, "/v1/contents/rekey", "Encrypt the store to a new identity"),
		func(context.Context, *struct{}) (*struct{}, error) {
			return nil, fail(a.nameDamaged(a.secrets.Rekey()))
		})
	huma.Register(h, op(http.MethodPost, "/v1/contents/recipients", "Say what files may be encrypted to"),
		func(context.Context, *struct{}) (*reply[[]api.ContentRecipient], error) {
			list, err := a.recipients()
			return &reply[[]api.ContentRecipient]{list}, fail(err)
		})
	huma.Register(h, op(http.MethodPost, "/v1/contents/export", "Export the store, encrypted"),
		func(_ context.Context, in *struct{ Body api.ContentExport }) (*reply[api.ContentArchive], error) {
			entries, err := a.exported()
			if err != nil {
				return nil, fail(err)
			}
			data, err := secrets.Export(entries, in.Body.Recipients, in.Body.Passphrase)
			if err != nil {
				return nil, fail(invalid("export: %v", err))
			}
			return &reply[api.ContentArchive]{api.ContentArchive{Data: data}}, nil
		})
	imports := op(http.MethodPost, "/v1/contents/import", "Import an export")
	imports.MaxBodyBytes = maxImport
	huma.Register(h, imports,
		func(_ context.Context, in *struct{ Body api.ContentImport }) (*reply[[]api.Content], error) {
			list, err := a.importContents(&in.Body)
			return &reply[[]api.Content]{list}, fail(err)
		})
}
