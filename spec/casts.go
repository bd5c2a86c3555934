package spec

import (
	"slices"

	interp "github.com/compose-spec/compose-go/v2/interpolation"
	"github.com/compose-spec/compose-go/v2/tree"
)

// casts leaves out the casts of attributes that no file holds. The loader
// tries each of a hundred patterns on each text, a fifth of its time; most
// stacks need five.
func (l *loading) casts(all map[tree.Path]interp.Cast) map[tree.Path]interp.Cast {
	written := map[string]bool{}
	for _, u := range l.units {
		if u.src.places == nil {
			return all // not parsed here: nothing is known of it
		}
		for _, p := range u.src.places {
			if p.key != nil {
				written[resolve(p.key).Value] = true
			}
		}
	}
	if len(l.units) > maxUnits {
		return all
	}
	out := map[tree.Path]interp.Cast{}
	for path, cast := range all {
		for _, part := range slices.Backward(path.Parts()) {
			if part != tree.PathMatchAll && part != tree.PathMatchList {
				if written[part] {
					out[path] = cast
				}
				break
			}
		}
	}
	return out
}
