package main

import (
	"context"

	"github.com/distribution/reference"

	"berth/api"
	"berth/cli"
	"berth/spec"
)

// credentials are the caller's for the registries of these references, to be
// sent with one request. A credential helper is asked once per registry.
func (a *app) credentials(ctx context.Context, refs []string) (api.Auths, error) {
	var kept *cli.Credentials
	auths := api.Auths{}
	asked := map[string]bool{}
	for _, ref := range refs {
		named, err := reference.ParseNormalizedNamed(ref)
		if err != nil {
			continue // the agent says what is wrong with it
		}
		host := cli.RegistryHost(reference.Domain(named))
		if asked[host] {
			continue
		}
		asked[host] = true
		if kept == nil {
			if kept, err = cli.ReadCredentials(); err != nil {
				return nil, err
			}
		}
		user, secret, ok, err := kept.Get(ctx, host)
		if err != nil {
			return nil, err
		}
		if ok {
			auths[host] = api.RegistryAuth{Username: user, Password: secret}
		}
	}
	if len(auths) == 0 {
		return nil, nil
	}
	return auths, nil
}

// stackCredentials are those for the images of a stack.
func (a *app) stackCredentials(ctx context.Context, stack *spec.Stack) (api.Auths, error) {
	var refs []string
	for _, image := range imagesOf(stack) {
		refs = append(refs, image.Reference)
	}
	return a.credentials(ctx, refs)
}
