package spec_test

import (
	"bytes"
	"os"
	"testing"

	"berth/spec"
)

// TestSupportDocument_IsGenerated holds docs/compose-support.md to the table
// that the linter uses. -update writes it.
func TestSupportDocument_IsGenerated(t *testing.T) {
	const file = "../docs/compose-support.md"
	want := spec.SupportDocument()
	if *update {
		if err := os.WriteFile(file, want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	have, err := os.ReadFile(file)
	if err != nil || !bytes.Equal(have, want) {
		t.Errorf("%s is out of date (%v): go test ./spec -run TestSupportDocument -update", file, err)
	}
	for _, a := range spec.Support() {
		if !bytes.Contains(want, []byte("`"+spec.ReadablePath(a.Path)+"`")) {
			t.Errorf("%s is not in the document", a.Path)
		}
	}
}
