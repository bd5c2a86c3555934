package secrets

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// withProviders is a store with a folder of scripts; each gets #!/bin/sh.
func withProviders(t *testing.T, scripts map[string]string) (s *Store, dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "providers")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, script := range scripts {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	root := t.TempDir()
	return reopen(t, Config{Root: filepath.Join(root, "root"), Run: filepath.Join(root, "run"), Providers: dir}), dir
}

func ask(t *testing.T, s *Store, command string, args ...string) (string, error) {
	t.Helper()
	out, err := s.Ask(t.Context(), Question{Command: command, Args: args, Env: []string{"BERTH_STACK=shop"}, Timeout: 10 * time.Second, Limit: plainLimit})
	return string(out), err
}

func TestAsk_TheValueIsWhatItPrints(t *testing.T) {
	s, _ := withProviders(t, map[string]string{
		"p":    `printf '%s\n' "$@"`,
		"raw":  `printf 'a\000b'`,
		"full": `head -c 512000 /dev/zero`,
		"said": `echo deprecated >&2; echo value`,
		"env":  `env | grep -v -e ^PWD= -e ^_= -e ^SHLVL= | cut -d= -f1 | sort | tr '\n' ' '; pwd; cat`,
		"left": `sleep 60 & echo value`,
		"away": `setsid sleep 60 & echo value`,
	})
	t.Setenv("VAULT_TOKEN", "of the agent")
	for _, c := range []struct{ command, arg, want string }{
		{"p", "swordfish", "swordfish"},
		{"p", "two\n", "two\n"}, // one newline is the program's own
		{"p", "$(id); `id` \"'*", "$(id); `id` \"'*"},
		{"raw", "", "a\x00b"},
		{"full", "", strings.Repeat("\x00", 512000)},
		{"said", "", "value"},
		{"env", "", "BERTH_STACK HOME PATH /"}, // and nothing from stdin
		{"left", "", "value"},
	} {
		if got, err := ask(t, s, c.command, c.arg); err != nil || got != c.want {
			t.Errorf("%s %q: %.40q, %v", c.command, c.arg, got, err)
		}
	}
	if got, err := s.Ask(t.Context(), Question{Command: "p", Timeout: time.Minute, Limit: 10}); err == nil {
		t.Errorf("nothing but a newline: %q", got)
	}
}

func TestAsk_WhatGoesWrong(t *testing.T) {
	pidfile := filepath.Join(t.TempDir(), "pid")
	s, dir := withProviders(t, map[string]string{
		"silent": ``,
		"fails":  `echo hush-hush; echo; echo "no such path: $1" >&2; printf 'see \033[31mdocs\n\n3\n4\n' >&2; exit 2`,
		"leaks":  `echo hush-hush; echo "got hush-hush and AGE-SECRET-KEY-1QQQ" >&2; exit 1`,
		"hangs":  `sh -c 'trap "" TERM INT HUP; echo $$ >` + pidfile + `; sleep 60' & echo waiting for the server >&2; wait`,
		"much":   `cat /dev/zero`,
		"abrt":   `kill -ABRT $$`,
	})
	if err := os.WriteFile(filepath.Join(dir, "noscript"), []byte("echo x\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ command, problem string }{
		{"none", "there is no provider none in " + dir},
		{"../p", "is no file name"},
		{"", "is no file name"},
		{".", "is no file name"},
		{"a/b", "is no file name"},
		{"silent", "provider silent printed nothing"},
		{"fails", "provider fails failed with exit code 2: no such path: it's; see  [31mdocs; 3"},
		{"leaks", "exit code 1: got *** and ***"},
		{"hangs", "provider hangs did not answer within 500ms: waiting for the server"},
		{"much", "provider much printed more than 500 KiB"},
		{"abrt", "provider abrt was ended by SIGABRT"},
		{"noscript", "provider noscript can't be run: exec format error"},
	} {
		timeout := 10 * time.Second
		if c.command == "hangs" {
			timeout = 500 * time.Millisecond
		}
		out, err := s.Ask(t.Context(), Question{Command: c.command, Args: []string{"it's"}, Timeout: timeout, Limit: plainLimit})
		wantSourceError(t, err, c.problem)
		if out != nil || err != nil && strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: %q, %v", c.command, out, err)
		}
	}
	wantGone(t, pidfile)
	_, err := ask(t, s, "fails", "it's", "plain")
	if e, _ := err.(*SourceError); e == nil || !strings.HasSuffix(e.Hint, dir+`/fails 'it'\''s' plain`) { //nolint:errorlint // bare
		t.Errorf("hint of %+v", err)
	}
}

// askForever says, in the environment, that the test is the agent that dies.
const askForever = "BERTH_TEST_ASK_FOREVER"

func TestAsk_KilledAgent_TakesTheProviderAlong(t *testing.T) {
	s, dir := withProviders(t, map[string]string{"hangs": `echo $$ >"$1"; exec sleep 60`})
	if pidfile := os.Getenv(askForever); pidfile != "" {
		_, err := s.Ask(t.Context(), Question{Command: "hangs", Args: []string{pidfile}, Timeout: time.Minute, Limit: 1})
		t.Fatal(err)
	}
	pidfile := filepath.Join(dir, "pid")
	agent := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
	agent.Env = append(os.Environ(), askForever+"="+pidfile)
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; <-time.After(10 * time.Millisecond) {
		if pid, err := os.ReadFile(pidfile); err == nil && strings.HasSuffix(string(pid), "\n") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the provider was never asked")
		}
	}
	if err := agent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = agent.Wait() // it was killed
	wantGone(t, pidfile)
}

func TestAsk_WhatOthersThanRootCouldChange_IsNotRun(t *testing.T) {
	s, dir := withProviders(t, map[string]string{"p": "echo x"})
	p := filepath.Join(dir, "p")
	undo := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		do, undo      func() error
		problem, hint string
	}{
		{func() error { return os.Chmod(p, 0o775) }, func() error { return os.Chmod(p, 0o755) }, p + " has mode 0775", "chmod go-w " + p},
		{func() error { return os.Chmod(p, 0o644) }, func() error { return os.Chmod(p, 0o755) }, "not executable", "chmod 0755 " + p},
		{func() error { return os.Chmod(dir, 0o757) }, func() error { return os.Chmod(dir, 0o755) }, dir + " has mode 0757", "chmod go-w " + dir},
		{func() error { return os.Chown(p, 1000, 0) }, func() error { return os.Chown(p, 0, 0) }, p + " belongs to user 1000", "chown root:root " + p},
		{func() error { return os.Chown(dir, 1000, 0) }, func() error { return os.Chown(dir, 0, 0) }, dir + " belongs to user 1000", "chown root:root " + dir},
		{func() error { return os.Chmod(filepath.Dir(dir), 0o777) }, func() error { return os.Chmod(filepath.Dir(dir), 0o755) }, filepath.Dir(dir) + " has mode 0777", "chmod"},
		{
			func() error { return os.Symlink(p, filepath.Join(dir, "l")) }, func() error { return os.Rename(filepath.Join(dir, "l"), filepath.Join(dir, "p")) },
			"is no file", "not a link",
		},
	} {
		undo(c.do())
		name := "p"
		if strings.Contains(c.hint, "link") {
			name = "l"
		}
		_, err := ask(t, s, name)
		wantSourceError(t, err, c.problem)
		if e, _ := err.(*SourceError); e == nil || !strings.Contains(e.Hint, c.hint) { //nolint:errorlint // bare
			t.Errorf("%s: hint %+v", c.problem, err)
		}
		undo(c.undo())
	}
}

func TestAsk_FolderBehindALink_IsLookedAtThere(t *testing.T) {
	s, dir := withProviders(t, map[string]string{"p": "echo x"})
	link := filepath.Join(t.TempDir(), "providers")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	s.cfg.Providers = link
	if got, err := ask(t, s, "p"); err != nil || got != "x" {
		t.Errorf("%q, %v", got, err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	_, err := ask(t, s, "p")
	wantSourceError(t, err, dir+" has mode 0777")
}

// The examples, with stand-ins for the programs that they call.
func TestAsk_Examples(t *testing.T) {
	s, dir := withProviders(t, nil)
	for _, name := range []string{"vault", "1password"} {
		text, err := os.ReadFile(filepath.Join("../examples/providers", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	bin := t.TempDir()
	for name, script := range map[string]string{
		"vault": `[ "$1 $2" = "kv get" ] && [ "$4" = secret/shop/db -o "$4" = secret/db ] || { echo "No value found at $4" >&2; exit 2; }; printf 'hush%s' "$3"`,
		"op":    `[ "$1 $2" = "read --no-newline" ] || exit 9; case $3 in op://Shop/db/password) printf hush ;; *) echo "[ERROR] $3 isn't an item" >&2; exit 1 ;; esac`,
	} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	for _, c := range []struct {
		args          []string
		want, problem string
	}{
		{[]string{"vault", "secret/shop/db", "password"}, "hush-field=password", ""},
		{[]string{"vault", "db"}, "hush-field=value", ""},
		{[]string{"vault", "other"}, "", "exit code 2: No value found at secret/other"},
		{[]string{"vault", "-address=http://there"}, "", "begins with a dash"},
		{[]string{"vault"}, "", "the path of the secret"},
		{[]string{"1password", "op://Shop/db/password"}, "hush", ""},
		{[]string{"1password", "op://Shop/x/y"}, "", "op://Shop/x/y isn't an item"},
		{[]string{"1password", "db"}, "", "set OP_VAULT"},
	} {
		got, err := ask(t, s, c.args[0], c.args[1:]...)
		if c.problem != "" {
			wantSourceError(t, err, c.problem)
		} else if err != nil || got != c.want {
			t.Errorf("%v: %q, %v", c.args, got, err)
		}
	}
}
