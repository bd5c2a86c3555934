package spec

import "github.com/compose-spec/compose-go/v2/tree"

// patterns are paths with "*" (any key or item) and "[]" (any item) in them,
// as a tree, so that a walk holds a value only against those that its parents
// have left.
type patterns[T any] struct {
	next map[string]*patterns[T]
	ends bool
	what T
}

func newPatterns[T any](all map[tree.Path]T) *patterns[T] {
	root := &patterns[T]{}
	for path, what := range all {
		p := root
		for _, part := range path.Parts() {
			if p.next == nil {
				p.next = map[string]*patterns[T]{}
			}
			if p.next[part] == nil {
				p.next[part] = &patterns[T]{}
			}
			p = p.next[part]
		}
		p.ends, p.what = true, what
	}
	return root
}

// rest are the patterns that can still match below some place.
type rest[T any] []*patterns[T]

func (r rest[T]) below(key string) rest[T] {
	var out rest[T]
	for _, p := range r {
		for _, part := range [...]string{key, tree.PathMatchAll} {
			if n := p.next[part]; n != nil {
				out = append(out, n)
			}
		}
	}
	return out
}

// here is what a pattern that ends at this place has.
func (r rest[T]) here() (what T, ok bool) {
	for _, p := range r {
		if p.ends {
			return p.what, true
		}
	}
	return what, false
}

// each gives every value that a pattern leads to what f makes of it. Below
// such a value there is no further search.
func (r rest[T]) each(v any, f func(what T, v any) (any, error)) (any, error) {
	if what, ok := r.here(); ok {
		return f(what, v)
	}
	if len(r) == 0 {
		return v, nil
	}
	var err error
	switch v := v.(type) {
	case map[string]any:
		for key, e := range v {
			if v[key], err = r.below(key).each(e, f); err != nil {
				return nil, err
			}
		}
	case []any:
		items := r.below(tree.PathMatchList)
		for i, e := range v {
			if v[i], err = items.each(e, f); err != nil {
				return nil, err
			}
		}
	}
	return v, nil
}
