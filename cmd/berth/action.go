package main

import (
	"context"

	"berth/api"
)

// act carries out an action on services of a stack (none: all).
func (a *app) act(ctx context.Context, req api.ActionRequest) error {
	name, client, err := a.stackAgent(ctx)
	if err != nil {
		return err
	}
	return a.carry(client.Action(ctx, name, req))
}
