package spec

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzEncryption: whatever a file holds, it is looked at without harm, and a SOPS
// file is one with encrypted values.
func FuzzEncryption(f *testing.F) {
	samples, err := filepath.Glob("testdata/encrypted/*")
	if err != nil || len(samples) == 0 {
		f.Fatal("no samples", err)
	}
	for _, path := range samples {
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(filepath.Base(path), text)
	}
	f.Add("x.json", []byte(`{"sops":{"mac":"ENC[`))
	f.Add("x", []byte("-----BEGIN AGE ENCRYPTED FILE-----"))
	f.Fuzz(func(t *testing.T, name string, content []byte) {
		got := encryption(name, content)
		if sops := strings.HasPrefix(got, "sops:"); sops && !strings.Contains(string(content), "ENC[") {
			t.Errorf("%s of a file without an encrypted value", got)
		}
	})
}
