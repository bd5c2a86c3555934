package spec_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/hashicorp/go-multierror"

	"berth/spec"
)

var sample = spec.Diagnostics{
	{
		Severity: spec.Error, Position: spec.Position{File: "compose.yaml", Line: 5, Col: 5}, Path: "services.web.prots",
		Message: `unknown attribute "prots" in service web`, Hint: `did you mean "ports"?`,
		Excerpt: "   4 |     image: web:v1\n   5 |     prots: [\"80:80\"]\n     |     ^^^^^",
	},
	{Severity: spec.Error, Position: spec.Position{File: "b.yaml"}, Message: "does not exist", Hint: "check the name"},
	{Severity: spec.Warning, Position: spec.Position{File: "compose.yaml", Line: 1, Col: 1}, Path: "version", Message: "obsolete"},
	{Severity: spec.Ignored, Position: spec.Position{File: "compose.yaml", Line: 7, Col: 5}, Path: "services.web.gpus", Message: "gpus is not honoured"},
}

func TestDiagnostics_Format(t *testing.T) {
	var b bytes.Buffer
	if err := sample.Format(&b, false); err != nil {
		t.Fatal(err)
	}
	want := `compose.yaml:5:5: unknown attribute "prots" in service web
   4 |     image: web:v1
   5 |     prots: ["80:80"]
     |     ^^^^^ did you mean "ports"?
b.yaml: does not exist
hint: check the name
compose.yaml:1:1: warning: obsolete
compose.yaml:7:5: ignored: gpus is not honoured
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
	b.Reset()
	if err := sample.Format(&b, true); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.String(), "\x1b[31m     |     ^^^^^ did you mean") {
		t.Errorf("no colour: %q", b.String())
	}
}

// TestDiagnostics_JSON_IsStable holds the documented form of `berth lint
// --format json`.
func TestDiagnostics_JSON_IsStable(t *testing.T) {
	out, err := sample.JSON()
	if err != nil {
		t.Fatal(err)
	}
	var got struct{ Errors, Warnings, Ignored []map[string]any }
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Errors) != 2 || len(got.Warnings) != 1 || len(got.Ignored) != 1 {
		t.Fatalf("got %s", out)
	}
	first := got.Errors[0]
	for key, want := range map[string]any{"file": "compose.yaml", "line": 5.0, "col": 5.0, "path": "services.web.prots", "hint": `did you mean "ports"?`} {
		if first[key] != want {
			t.Errorf("%s: %v, want %v", key, first[key], want)
		}
	}
	if len(first) != 6 {
		t.Errorf("other keys: %v", first)
	}
	empty, err := spec.Diagnostics(nil).JSON()
	if err != nil || !strings.Contains(string(empty), `"errors": []`) {
		t.Errorf("an empty list is not []: %s, %v", empty, err)
	}
}

func TestDiagnostics_Err_OneLineEach(t *testing.T) {
	err := sample.Err()
	want := "compose.yaml:5:5: unknown attribute \"prots\" in service web\nb.yaml: does not exist"
	if err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
	if m, ok := err.(*multierror.Error); !ok || len(m.Errors) != 2 { //nolint:errorlint // the type is the contract
		t.Errorf("got %T", err)
	}
	if err := sample.Filter(spec.Warning).Err(); err != nil {
		t.Errorf("warnings alone are an error: %v", err)
	}
}

func TestDiagnostics_Strict_IgnoredIsAnError(t *testing.T) {
	if got := len(sample.Strict().Filter(spec.Error)); got != 3 {
		t.Errorf("%d errors, want 3", got)
	}
	if len(sample.Filter(spec.Ignored)) != 1 || !sample.Has(spec.Ignored) || !sample.Errors() {
		t.Error("Strict changed its receiver")
	}
}

func TestDiagnostics_Lines(t *testing.T) {
	var b bytes.Buffer
	if err := sample.Lines(&b); err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(b.String(), "\n"); got != len(sample) {
		t.Errorf("%d lines for %d findings:\n%s", got, len(sample), b.String())
	}
}
