package spec

import (
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/schema"
	"github.com/compose-spec/compose-go/v2/tree"
)

// TestSupport_ListsEveryAttributeOfTheSchema fails when an update of the
// Compose schema brings an attribute that nobody has decided about.
func TestSupport_ListsEveryAttributeOfTheSchema(t *testing.T) {
	have := map[string]bool{}
	for _, a := range Support() {
		if have[a.Path] {
			t.Errorf("%s is listed twice", a.Path)
		}
		have[a.Path] = true
	}
	known := map[string]bool{}
	for _, p := range schema.AttributePaths() {
		known[string(p)] = true
		if !have[string(p)] {
			t.Errorf("the schema has %s, the table has not", p)
		}
	}
	for path := range have {
		// The walk of the schema leaves out containers that hold only a
		// pattern; the table may name them.
		if !known[path] && !slices.ContainsFunc(schema.AttributePaths(), func(p tree.Path) bool { return strings.HasPrefix(string(p), path+".") }) {
			t.Errorf("the table has %s, the schema has not", path)
		}
	}
	if len(known) < 700 {
		t.Errorf("only %d attributes in the schema: it was not read", len(known))
	}
}

// TestSupport_NotHonoured_HasAHint: a line that says "not honoured" must say
// what to do.
func TestSupport_NotHonoured_HasAHint(t *testing.T) {
	for _, a := range Support() {
		mirrored := strings.HasPrefix(a.Path, "jobs.*.") || strings.HasPrefix(a.Path, "services.*.pre_start.[]")
		if (!a.Honoured || len(a.Values) > 0) && a.Hint == "" && !mirrored {
			t.Errorf("%s has no hint", a.Path)
		}
	}
}

func TestSuggest_NearestAttribute(t *testing.T) {
	service := schemaTree().keys["services"].any
	for key, want := range map[string]string{
		"prots": "ports", "port": "ports", "Ports": "ports", "env-file": "env_file", "environmnt": "environment",
		"environments": "environment", "volume": "volumes", "depend_on": "depends_on", "dependson": "depends_on",
		"health_check": "healthcheck", "cap-add": "cap_add", "restrat": "restart", "mem_limits": "mem_limit",
		"zzz": "", "x": "", "content": "",
	} {
		if got := service.suggest(key); got != want {
			t.Errorf("%s: %q, want %q", key, got, want)
		}
	}
}

func TestElsewhere_NamesTheOnePlace(t *testing.T) {
	root := schemaTree()
	for key, want := range map[string]string{
		"replicas": "deploy.replicas", "interval": "healthcheck.interval", "constraints": "deploy.placement.constraints",
		"nothing": "",
	} {
		if got := root.keys["services"].any.elsewhere(key); got != want {
			t.Errorf("%s: %q, want %q", key, got, want)
		}
	}
}

func TestEditDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"a", "", 1}, {"", "ab", 2}, {"ports", "prots", 1}, {"ports", "port", 1}, {"image", "images", 1}, {"abc", "xyz", 3}} {
		if got := editDistance(c.a, c.b); got != c.want {
			t.Errorf("%q and %q: %d, want %d", c.a, c.b, got, c.want)
		}
	}
}
