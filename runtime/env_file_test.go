package runtime

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// withEnvFile gives c a file of variables that only its user can read.
func (b *bench) withEnvFile(c Container, entries string) Container {
	b.tb.Helper()
	c.EnvFile = filepath.Join(b.tb.TempDir(), "env")
	uid, gid, err := LookupUser(c.Rootfs, c.User)
	err = errors.Join(err, os.WriteFile(c.EnvFile, []byte(entries), 0o400), os.Chown(c.EnvFile, uid, gid))
	if err != nil {
		b.tb.Fatal(err)
	}
	return c
}

// TestEnvFile_TheCommandIsAsWithoutIt holds that but for its environment the
// command can't tell that another program was there before it.
func TestEnvFile_TheCommandIsAsWithoutIt(t *testing.T) {
	eachRuntime(t, func(t *testing.T, b *bench) {
		b.cfg.Init = initBinary(t)
		b.reopen()
		confined := func(id string) Container {
			c := b.container(id, "facts")
			c.User, c.CapDrop, c.ReadOnly, c.Hostname = "app", []string{"ALL"}, true, "same"
			c.SecurityOpt = []string{"no-new-privileges"}
			c.Resources.Memory = minimumMemory
			return c
		}
		root := func(id string) Container {
			c := b.container(id, "facts")
			c.Hostname = "same"
			return c
		}
		for i, make := range []func(string) Container{confined, root} {
			id := string(rune('a' + i))
			without := b.facts(make(id + "1"))
			with := b.facts(b.withEnvFile(make(id+"2"), "A=from the file\nin two lines\x00PATH=/other\x00EMPTY=\x00"))
			for _, want := range []string{"A=from the file\nin two lines", "PATH=/other", "EMPTY="} {
				if !slices.Contains(with.Env, want) {
					t.Errorf("no %q in %q", want, with.Env)
				}
			}
			without.Env, with.Env, without.Mounts, with.Mounts = nil, nil, "", ""
			for _, own := range []string{"Pid", "NSpid", "voluntary_ctxt_switches", "nonvoluntary_ctxt_switches", "Threads"} {
				delete(without.Status, own)
				delete(with.Status, own)
			}
			for name, was := range without.Status {
				if strings.HasPrefix(name, "Vm") || strings.HasPrefix(name, "Rss") || strings.HasPrefix(name, "Cpus") || strings.HasPrefix(name, "Hugetlb") {
					continue
				}
				if is := with.Status[name]; is != was {
					t.Errorf("%s: %s, without the file %s", name, is, was)
				}
			}
			without.Status, with.Status = nil, nil
			if !reflect.DeepEqual(with, without) {
				t.Errorf("with %+v, without %+v", with, without)
			}
			config, err := os.ReadFile(inBundle(b.bundle(id+"2"), "config.json"))
			if err != nil || bytes.Contains(config, []byte("from the file")) {
				t.Errorf("config.json: %v, %s", err, config)
			}
		}
	})
}

func TestEnvFile_ExecsHaveItToo_WhoeverRunsThem(t *testing.T) {
	eachRuntime(t, func(t *testing.T, b *bench) {
		b.cfg.Init = initBinary(t)
		b.reopen()
		c := b.container("a1", "sleep")
		c.User, c.CapDrop = "app", []string{"ALL"}
		c = b.withEnvFile(c, "A=from the file\x00B=file\x00")
		b.run(c)
		b.reopen() // another agent knows it as well
		for name, e := range map[string]Exec{
			"its user": {}, "root": {User: "0"}, "another": {User: "4242"}, "privileged": {User: "0", Privileged: true},
			"terminal": {TTY: true}, "own": {Env: []string{"B=own", "C=c"}},
		} {
			var out bytes.Buffer
			e.Args, e.Stdout = []string{"/probe", "facts"}, &out
			code, err := b.Exec(t.Context(), "a1", e)
			if err != nil || code != 0 {
				t.Errorf("%s: exit %d, %v, %s", name, code, err, out.String())
				continue
			}
			var f facts
			if err := json.Unmarshal(out.Bytes(), &f); err != nil {
				t.Fatalf("%s: %v in %q", name, err, out.String())
			}
			b := "B=file"
			if name == "own" {
				b = "B=own"
			}
			if !slices.Contains(f.Env, "A=from the file") || !slices.Contains(f.Env, b) || strings.Join(f.Args, " ") != "/probe facts" {
				t.Errorf("%s: %q, args %q", name, f.Env, f.Args)
			}
			if slices.ContainsFunc(f.Fds, func(fd string) bool { return strings.Contains(fd, "/env") }) {
				t.Errorf("%s: it has the file open: %q", name, f.Fds)
			}
		}
		if code, err := b.Exec(t.Context(), "a1", Exec{Args: []string{"/missing"}}); code != 127 || err != nil {
			t.Errorf("a command that is not there: exit %d, %v", code, err)
		}
		if err := os.Remove(c.EnvFile); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Exec(t.Context(), "a1", Exec{Args: []string{"/probe", "exit", "0"}}); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("without the file: %v", err)
		}
	})
}
