package spec_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"berth/spec"
)

const (
	ageBinary = "age-encryption.org/v1\n-> X25519 abc\n"
	ageArmor  = "-----BEGIN AGE ENCRYPTED FILE-----\nYWdl\n-----END AGE ENCRYPTED FILE-----\n"
)

func TestLoad_EncryptedFiles_AreToldByWhatTheyHold(t *testing.T) {
	dir := t.TempDir()
	sops := func(name string) string {
		text, err := os.ReadFile(filepath.Join("testdata/encrypted", name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	for _, c := range []struct{ name, content, want string }{
		{"plain.txt", "swordfish", ""},
		{"plain.age", "swordfish", ""},
		{"empty", "", ""},
		{"db.password", ageBinary, spec.EncryptedAge},
		{"armored", "\r\n " + ageArmor, spec.EncryptedAge},
		{"about.md", "how to use " + ageBinary + ageArmor, ""},
		{"v2", "age-encryption.org/v2\n", ""},
		{"app", sops("app.yaml"), spec.EncryptedSOPSYAML},
		{"crlf.yaml", strings.ReplaceAll(sops("app.yaml"), "\n", "\r\n"), spec.EncryptedSOPSYAML},
		{"app.json", sops("app.json"), spec.EncryptedSOPSJSON},
		{"app.bin", sops("app.bin"), spec.EncryptedSOPSBinary},
		{"two.enc", strings.Replace(sops("app.json"), `"data"`, `"user": "ENC[AES256_GCM,data:]", "data"`, 1), spec.EncryptedSOPSJSON},
		{"app.env", sops("app.env"), spec.EncryptedSOPSDotenv},
		{"app.ini", sops("app.ini"), spec.EncryptedSOPSINI},
		{".sops.yaml", "creation_rules:\n  - age: age1\n# sops: ENC[\n", ""},
		{"plain.yaml", "sops:\n  mac: none\nx: ENC[\n", ""},
		{"plain.json", `{"sops": {"mac": "ENC"}, "x": "ENC["}`, ""},
		{"half.json", `{"sops": {"mac": "ENC[`, ""},
		{"plain.ini", "[sops]\nkey = ENC[\n", ""},
	} {
		for _, decrypt := range []string{"true", "false"} {
			if err := os.WriteFile(filepath.Join(dir, c.name), []byte(c.content), 0o600); err != nil {
				t.Fatal(err)
			}
			st := loadText(t, dir, `
services: {web: {image: nginx, secrets: [s]}}
secrets: {s: {file: ./`+c.name+`, x-decrypt: `+decrypt+`}}
`)
			want := c.want
			if decrypt == "false" {
				want = ""
			}
			if got := st.Secrets["s"]; got.Encrypted != want || string(got.Content) != c.content {
				t.Errorf("%s: %q, want %q", c.name, got.Encrypted, want)
			}
		}
	}
}

func TestLoad_EncryptedFile_MayBeLargerThanItsContent(t *testing.T) {
	const limit = 500 << 10
	for _, c := range []struct {
		head string
		size int
		ok   bool
	}{{ageBinary, limit, true}, {ageBinary, 4 * limit, true}, {ageBinary, 4*limit + 1, false}, {"plain", limit, true}, {"plain", limit + 1, false}} {
		dir := t.TempDir()
		content := append([]byte(c.head), bytes.Repeat([]byte("x"), c.size-len(c.head))...)
		if err := os.WriteFile(filepath.Join(dir, "f"), content, 0o600); err != nil {
			t.Fatal(err)
		}
		text := "services: {web: {image: nginx, secrets: [s]}}\nsecrets: {s: {file: ./f}}\n"
		if err := os.WriteFile(filepath.Join(dir, "compose.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := spec.Load(t.Context(), spec.Options{Dir: dir, Environ: []string{}})
		if err != nil {
			t.Fatal(err)
		}
		err = r.Diagnostics.Err()
		if c.ok != (err == nil) {
			t.Errorf("%.5s of %d bytes: %v", c.head, c.size, err)
		}
		if !c.ok && !strings.Contains(err.Error(), "the limit is 500 KiB") {
			t.Errorf("%.5s of %d bytes: %v", c.head, c.size, err)
		}
	}
}

func TestLoad_Provider_EveryForm(t *testing.T) {
	dir := t.TempDir()
	included := `
secrets:
  inc: {x-provider: op}
configs:
  inc: {x-provider: op}
`
	if err := os.WriteFile(filepath.Join(dir, "more.yaml"), []byte(included), 0o600); err != nil {
		t.Fatal(err)
	}
	text := `
include: [./more.yaml]
services:
  web: {image: nginx, secrets: [short, named, long, none, inc], configs: [inc, conf]}
secrets:
  short: {x-provider: vault}
  named: {x-provider: vault, name: db_password}
  long: {x-provider: {command: "vault.sh", args: [kv, "-field=x", 1, true, "${PORT}"], timeout: 1m}}
  none: {x-provider: {command: vault, args: []}}
configs:
  conf: {x-provider: vault, x-on-change: ignore}
`
	st := loadText(t, dir, text)
	ten := 10 * time.Second
	for key, want := range map[string]*spec.Provider{
		"short": {Command: "vault", Args: []string{"short"}, Timeout: ten},
		"named": {Command: "vault", Args: []string{"db_password"}, Timeout: ten},
		"long":  {Command: "vault.sh", Args: []string{"kv", "-field=x", "1", "true", "7000"}, Timeout: time.Minute},
		"none":  {Command: "vault", Timeout: ten},
		"inc":   {Command: "op", Args: []string{"inc"}, Timeout: ten},
	} {
		if diff := cmp.Diff(want, st.Secrets[key].Provider); diff != "" {
			t.Errorf("%s: %s", key, diff)
		}
	}
	for key, want := range map[string]string{"inc": "op", "conf": "vault"} {
		if p := st.Configs[key].Provider; p == nil || p.Command != want || st.Configs[key].Content != nil {
			t.Errorf("config %s: %+v", key, p)
		}
	}
	if st.Configs["conf"].OnChange != spec.OnChangeIgnore {
		t.Error("x-on-change beside x-provider is lost")
	}

	for _, o := range []spec.Options{{Inspect: true}, {NoInterpolate: true}} {
		o.Dir, o.Environ = dir, []string{"PORT=1"}
		r, err := spec.Load(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		out, err := r.Config("yaml", nil)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(out, []byte("environment")) || !bytes.Contains(out, []byte("x-provider: vault")) {
			t.Errorf("printed:\n%s", out)
		}
	}
}
