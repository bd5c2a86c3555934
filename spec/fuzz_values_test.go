package spec

import (
	"slices"
	"testing"

	"github.com/compose-spec/compose-go/v2/types"
)

// FuzzInterpolation: our own reading of the variables of a text agrees with
// the loader's on what is refused, and never panics.
func FuzzInterpolation(f *testing.F) {
	for _, s := range []string{"$A", "${A}", "${A:-b}", "${A:?no}", "${A+${B}}", "$$", "$", "${", "${}", "${A:-${B:-c}}", "${A%%-*}", "$(a)", "${A:-}}", "{$A}", "${A-$}"} {
		f.Add(s)
	}
	env := func(name string) (string, bool) { return "v", name == "A" }
	f.Fuzz(func(t *testing.T, text string) {
		if tooManyVariables(text) != "" {
			t.Skip()
		}
		refs, ok := references(text)
		for _, r := range refs {
			if r.name == "" || identifier(r.name) != r.name {
				t.Errorf("%q: a variable named %q", text, r.name)
			}
		}
		found := problems(text, env)
		_, err := substitute(text, env)
		required := false
		for _, p := range found {
			required = required || p.required
		}
		if err == nil && ok && required {
			t.Errorf("%q: we miss a required variable, the loader does not: %v", text, found)
		}
	})
}

// FuzzPort: whatever stands under ports, what is published stays within the
// bounds, and portCount is not below it.
func FuzzPort(f *testing.F) {
	for _, s := range []string{"80", "8080:80", "127.0.0.1:80:80", "[::1]:80:80/udp", "8000-8005:8000-8005", "80-90:80", "::", "-", "1-65535", ":80", "a:b:c:d", "0:0/sctp"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		n := portCount(text)
		if n > maxPorts {
			t.Skip() // refused before it is expanded
		}
		list, err := types.ParsePortConfig(text)
		if err != nil {
			if portMessage(text, err) == "" {
				t.Error("no words")
			}
			return
		}
		for _, p := range list {
			out, err := port(p)
			if err != nil {
				continue
			}
			if out.Target == 0 || (out.PublishedEnd != 0 && out.PublishedEnd < out.Published) || !slices.Contains([]string{"tcp", "udp", "sctp"}, out.Protocol) {
				t.Errorf("%q: %+v", text, out)
			}
		}
	})
}
