package spec

import (
	"maps"
	"strings"
	"testing"
)

func TestRawEnv_NothingInAValueMeansAnything(t *testing.T) {
	got := map[string]string{}
	text := "A=\"$HOME\" it's # here\n\n# B=no\n  C= spaced \nD=\nINHERITED\nNOWHERE\nE=a=b\r\n"
	err := rawEnv(strings.NewReader(text), "x.env", got, func(k string) (string, bool) { return "outside", k == "INHERITED" })
	want := map[string]string{"A": `"$HOME" it's # here`, "C": " spaced ", "D": "", "INHERITED": "outside", "E": "a=b"}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
	for _, bad := range []string{"=x", "A B=x", "\x00=x", "A=" + strings.Repeat("x", maxEnvLine+1)} {
		if err := rawEnv(strings.NewReader(bad), "x.env", got, nil); err == nil {
			t.Errorf("%.10q is taken", bad)
		}
	}
}
