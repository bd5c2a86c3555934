package spec

import (
	"slices"
	"strings"
	"sync"
)

// element is one node of the schema as a tree: what may stand below an
// attribute. It is made from the support table.
type element struct {
	path string
	// attr is nil for a node that only leads to others.
	attr *Attribute
	keys map[string]*element // named attributes
	any  *element            // a key that the user chooses
	item *element            // an item of a list
}

func (e *element) child(key string) *element {
	if e == nil {
		return nil
	}
	if c, ok := e.keys[key]; ok {
		return c
	}
	return e.any
}

// open says that the schema tells nothing of the keys below e: they are free.
func (e *element) open() bool { return e == nil || (len(e.keys) == 0 && e.any == nil) }

var schemaTree = sync.OnceValue(func() *element {
	root := &element{}
	all := support()
	for i := range all {
		e := root
		for _, part := range strings.Split(all[i].Path, ".") {
			e = e.grow(part)
		}
		e.path, e.attr = all[i].Path, &all[i]
	}
	return root
})

func (e *element) grow(part string) *element {
	slot := &e.any
	switch part {
	case "*":
	case "[]":
		slot = &e.item
	default:
		if e.keys == nil {
			e.keys = map[string]*element{}
		}
		if c := e.keys[part]; c != nil {
			return c
		}
		c := &element{}
		e.keys[part] = c
		return c
	}
	if *slot == nil {
		*slot = &element{}
	}
	return *slot
}

// suggest says what the user may have meant by an unknown key below e, or ""
// when nothing is near.
func (e *element) suggest(key string) string {
	lower := strings.ToLower(strings.ReplaceAll(key, "-", "_"))
	best, bestDist := "", 3
	for _, name := range sortedKeys(e.keys) {
		dist := editDistance(lower, name)
		if dist == 0 {
			return name
		}
		// A two-letter word is two edits from everything.
		if dist < bestDist && dist*2 < len(name)+1 {
			best, bestDist = name, dist
		}
	}
	if best != "" {
		return best
	}
	for _, name := range sortedKeys(e.keys) {
		if len(lower) >= 3 && (strings.HasPrefix(name, lower) || strings.HasPrefix(lower, name)) {
			return name
		}
	}
	return ""
}

// elsewhere finds the one place below e where key is known, such as
// "deploy.replicas"; "" if there is none or more than one.
func (e *element) elsewhere(key string) string {
	if e == nil {
		return ""
	}
	var found []string
	var walk func(e *element, path string)
	walk = func(e *element, path string) {
		for _, name := range sortedKeys(e.keys) {
			if name == key {
				found = append(found, join(path, name))
			}
			if name != "pre_start" && name != "build" {
				walk(e.keys[name], join(path, name))
			}
		}
		if e.item != nil {
			walk(e.item, path)
		}
	}
	walk(e, "")
	slices.SortStableFunc(found, func(a, b string) int { return strings.Count(a, ".") - strings.Count(b, ".") })
	if len(found) == 0 || (len(found) > 1 && strings.Count(found[0], ".") == strings.Count(found[1], ".")) {
		return ""
	}
	return found[0]
}

// editDistance is the number of single-byte insertions, deletions,
// substitutions and swaps of neighbours between a and b.
func editDistance(a, b string) int {
	prev2, prev, cur := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], prev2[j-2]+1)
			}
		}
		prev2, prev, cur = prev, cur, prev2
	}
	return prev[len(b)]
}

// sortedKeys gives the keys of m in order.
func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
