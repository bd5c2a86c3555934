package overlaynet

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// table is the content of our nftables table, in nft's words.
type table struct {
	sets   []set   // always the same ones, with other elements
	chains []chain // those of services and networks, then the base chains
}

// set is a named set or map.
type set struct {
	kind, name, spec string
	elements         []string // "key", of maps "key : value"
	lingers          bool     // elements stay for a while when they are not wanted any more
}

// chain is a base chain if it has a hook.
type chain struct {
	name, hook string
	statements []string // also comments: "# …"
}

// text is the table for nft to load where there is none.
func (t table) text(prefix string) string {
	var w strings.Builder
	fmt.Fprintf(&w, "table inet %s {\n", prefix)
	for _, s := range t.sets {
		writeSet(&w, s)
	}
	for _, c := range t.chains {
		writeChain(&w, c)
	}
	w.WriteString("}\n")
	return w.String()
}

// refill empties the table that is there and fills it again, in one
// transaction. Chains and sets that go on existing are not deleted: a packet
// on its way finds a chain with its old rules or one with its new ones, never
// an empty one.
func (t table) refill(prefix string, there names) string {
	var w strings.Builder
	fmt.Fprintf(&w, "flush table inet %s\n", prefix)
	for _, s := range t.sets {
		if kind, ok := there.sets[s.name]; ok && kind == s.kind {
			fmt.Fprintf(&w, "flush %s inet %s %s\n", kind, prefix, s.name)
			delete(there.sets, s.name)
		}
	}
	for _, c := range t.chains {
		delete(there.chains, c.name)
	}
	for _, name := range sortedKeys(there.sets) {
		fmt.Fprintf(&w, "delete %s inet %s %s\n", there.sets[name], prefix, name)
	}
	for _, name := range sortedKeys(there.chains) {
		fmt.Fprintf(&w, "delete chain inet %s %s\n", prefix, name)
	}
	w.WriteString(t.text(prefix))
	return w.String()
}

// changes leads from the table that is in force to t; empty: they are equal.
// Chains come before the elements that lead to them, and go after them.
func (t table) changes(prefix string, before table) string {
	var w, refilled, added strings.Builder
	for i, s := range t.sets {
		old := before.sets[i].elements
		if slices.Equal(old, s.elements) {
			continue
		}
		writeElements(&w, "delete", prefix, s.name, keysOf(without(old, s.elements)))
		writeElements(&added, "add", prefix, s.name, without(s.elements, old))
	}
	gone := map[string]chain{}
	for _, c := range before.chains {
		gone[c.name] = c
	}
	for _, c := range t.chains {
		old, ok := gone[c.name]
		delete(gone, c.name)
		if ok && slices.Equal(old.statements, c.statements) {
			continue
		}
		if ok {
			fmt.Fprintf(&w, "flush chain inet %s %s\n", prefix, c.name)
		}
		writeChain(&refilled, c)
	}
	if refilled.Len() > 0 {
		fmt.Fprintf(&w, "table inet %s {\n%s}\n", prefix, refilled.String())
	}
	w.WriteString(added.String())
	for _, name := range sortedKeys(gone) {
		fmt.Fprintf(&w, "flush chain inet %[1]s %[2]s\ndelete chain inet %[1]s %[2]s\n", prefix, name)
	}
	return w.String()
}

// lingering is longer than a packet takes from one hook to the next.
const lingering = time.Second

// linger adds to t what a packet may still ask for that the rules before led
// somewhere, as it passes the hooks one after the other. left has the times
// since when elements are not wanted. They go with the first change after their
// time is over; until then they do no harm.
func (t table) linger(before table, left map[string]time.Time, now time.Time) {
	for i, s := range t.sets {
		if !s.lingers || len(before.sets) == 0 {
			continue
		}
		for _, e := range s.elements {
			delete(left, e)
		}
		for _, e := range without(before.sets[i].elements, s.elements) {
			since, ok := left[e]
			if !ok {
				since, left[e] = now, now
			}
			if now.Sub(since) < lingering {
				t.sets[i].elements = append(t.sets[i].elements, e)
			} else {
				delete(left, e)
			}
		}
	}
}

// without gives the elements of a that b lacks.
func without(a, b []string) []string {
	there := make(map[string]bool, len(b))
	for _, e := range b {
		there[e] = true
	}
	var out []string
	for _, e := range a {
		if !there[e] {
			out = append(out, e)
		}
	}
	return out
}

func keysOf(elements []string) []string {
	for i, e := range elements {
		elements[i], _, _ = strings.Cut(e, " : ")
	}
	return elements
}

func writeElements(w io.Writer, verb, prefix, set string, elements []string) {
	if len(elements) > 0 {
		fmt.Fprintf(w, "%s element inet %s %s { %s }\n", verb, prefix, set, strings.Join(elements, ", "))
	}
}

func writeSet(w io.Writer, s set) {
	fmt.Fprintf(w, "\t%s %s {\n", s.kind, s.name)
	for line := range strings.SplitSeq(s.spec, "; ") {
		fmt.Fprintf(w, "\t\t%s\n", line)
	}
	if len(s.elements) > 0 {
		fmt.Fprint(w, "\t\telements = {\n")
		for _, e := range s.elements {
			fmt.Fprintf(w, "\t\t\t%s,\n", e)
		}
		fmt.Fprint(w, "\t\t}\n")
	}
	fmt.Fprint(w, "\t}\n")
}

func writeChain(w io.Writer, c chain) {
	fmt.Fprintf(w, "\tchain %s {\n", c.name)
	if c.hook != "" {
		fmt.Fprintf(w, "\t\ttype %s; policy accept;\n", c.hook)
	}
	for _, s := range c.statements {
		fmt.Fprintf(w, "\t\t%s\n", s)
	}
	fmt.Fprint(w, "\t}\n")
}

func sortedKeys[V any](m map[string]V) []string {
	return slices.Sorted(func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	})
}
