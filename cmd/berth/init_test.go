package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"berth/spec"
)

// TestStarter_EveryKit_Loads holds what init writes to the loader, as it is
// and with every comment that is YAML made real.
func TestStarter_EveryKit_Loads(t *testing.T) {
	names := []string{"Dockerfile", "nothing"}
	for _, k := range kits {
		names = append(names, k.file)
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, name), []byte("FROM x\nEXPOSE 9000/tcp\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			text, what, err := starter(dir)
			if err != nil || what == "" {
				t.Fatal(what, err)
			}
			if name == "Dockerfile" && !strings.Contains(text, `"8080:9000"`) {
				t.Error("the exposed port is not published:\n", text)
			}
			if err := os.WriteFile(filepath.Join(dir, "db_password.txt"), []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
			for what, file := range map[string]string{"as written": text, "with its comments": uncommented(text)} {
				path := filepath.Join(dir, "compose.yaml")
				if err := os.WriteFile(path, []byte(file), 0o644); err != nil {
					t.Fatal(err)
				}
				result, err := spec.Load(t.Context(), spec.Options{Dir: dir, Environ: []string{}})
				if err != nil {
					t.Fatal(err)
				}
				for _, d := range result.Diagnostics {
					if d.Severity == spec.Error {
						t.Errorf("%s: %s\n%s", what, d.Error(), file)
					}
				}
			}
		})
	}
}

// uncommented makes YAML of the comments that are YAML.
func uncommented(text string) string {
	var out []string
	for _, line := range strings.Split(text, "\n") {
		bare := strings.TrimLeft(line, " ")
		rest, comment := strings.CutPrefix(bare, "# ")
		if !comment {
			out = append(out, line)
			continue
		}
		first := strings.TrimLeft(rest, " -")
		key, _, found := strings.Cut(first, ":")
		if !found || strings.ContainsAny(key, " `,") || strings.HasSuffix(rest, "sends it:") {
			continue
		}
		out = append(out, strings.Repeat(" ", len(line)-len(bare))+rest)
	}
	return strings.Join(out, "\n")
}

func TestMan_EveryCommandHasAPage(t *testing.T) {
	for _, cmd := range commands(t) {
		page := manPage(cmd)
		for _, want := range []string{".TH ", ".SH NAME\n", ".SH SYNOPSIS\n", ".SH DESCRIPTION\n", ".SH EXIT STATUS\n  0 "} {
			if want == ".SH EXIT STATUS\n  0 " {
				want = ".SH EXIT STATUS\n.nf\n  0 "
			}
			if !strings.Contains(page, want) {
				t.Errorf("%s: no %q", cmd.CommandPath(), want)
			}
		}
		for line := range strings.Lines(page) {
			if strings.HasPrefix(line, ".") && !strings.HasPrefix(line, ".TH") && !strings.HasPrefix(line, ".SH") &&
				!strings.HasPrefix(line, ".B") && !strings.HasPrefix(line, ".PP") && !strings.HasPrefix(line, ".TP") &&
				!strings.HasPrefix(line, ".nf") && !strings.HasPrefix(line, ".fi") {
				t.Errorf("%s: %q is a macro to roff", cmd.CommandPath(), line)
			}
		}
	}
}
