package spec

import (
	interp "github.com/compose-spec/compose-go/v2/interpolation"
	"github.com/compose-spec/compose-go/v2/template"
	"github.com/compose-spec/compose-go/v2/tree"
)

// interpolate is a copy of v with the variables filled in, and the texts that
// a cast is for turned into numbers and truth values.
func interpolate(v any, o *interp.Options, casts rest[interp.Cast]) (any, error) {
	switch v := v.(type) {
	case string:
		text, err := o.Substitute(v, template.Mapping(o.LookupValue))
		if err != nil {
			return nil, err //nolint:wrapcheck // only whether there is an error is asked
		}
		if cast, ok := casts.here(); ok {
			return cast(text)
		}
		return text, nil
	case map[string]any:
		out := make(map[string]any, len(v))
		for key, e := range v {
			filled, err := interpolate(e, o, casts.below(key))
			if err != nil {
				return nil, err
			}
			out[key] = filled
		}
		return out, nil
	case []any:
		out := make([]any, len(v))
		items := casts.below(tree.PathMatchList)
		for i, e := range v {
			filled, err := interpolate(e, o, items)
			if err != nil {
				return nil, err
			}
			out[i] = filled
		}
		return out, nil
	}
	return v, nil
}
