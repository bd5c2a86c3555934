package spec

import (
	"context"
	"errors"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
)

var errRefused = errors.New("refused before the loader is asked")

// Stages loads files stage by stage, Loader by the loader itself.
func Stages(ctx context.Context, o Options) (*types.Project, error) {
	l, err := surveyed(ctx, o)
	if err != nil {
		return nil, err
	}
	return l.staged(ctx)
}

func Loader(ctx context.Context, o Options) (p *types.Project, err error) {
	l, err := surveyed(ctx, o)
	if err != nil {
		return nil, err
	}
	defer func() {
		if recover() != nil {
			err = errRefused
		}
	}()
	return loader.LoadWithContext(ctx, l.details(), l.options)
}

func surveyed(ctx context.Context, o Options) (*loading, error) {
	filterLoaderWarnings()
	l := &loading{
		o: o, dir: o.Dir, ctx: ctx,
		bySource: map[string]*source{}, extended: map[string]extended{}, fetched: map[string]string{},
	}
	l.in = l.discover()
	l.readMain()
	if !l.diags.Errors() {
		l.survey(ctx)
	}
	if l.diags.Errors() {
		return nil, errRefused
	}
	return l, nil
}

func KnowsSchema(text string) bool { return parseRules(text) != nil }

// Valid and errors of the two readings of the schema.
func Valid(model map[string]any) error { return valid(model) }
