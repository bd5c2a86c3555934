package e2e_test

import (
	"bytes"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/rogpeppe/go-internal/testscript"

	"berth/spec"
	"berth/testbed"
)

// conformance is the folder of the run-time conformance suite: one small stack
// per attribute, with assertions from inside or outside of its containers. A
// script names what it proves in lines that begin with "# proves:", as paths
// of spec.Support.
const conformance = "../testdata/conformance"

// TestConformance plays the scripts against one agent. Each has a folder and a
// stack of its own, which is taken away at its end. Beside what testscript
// knows there are
//
//	berth ARGS…               the command line; its output is what stdout and stderr look at
//	datagrams SOCKET FILE     what comes in at a socket, into a file
//	eventually REGEXP ARGS…   berth ARGS…, again until it prints what matches
//	seal FILE SEALED          age's encryption, to the recipient that stdout has
//
// A script that this machine can't play says `[!thing] skip 'what is missing'`.
func TestConformance(t *testing.T) {
	testbed.NeedKernel(t)
	playConformance(t, "*", "buildah")
}

// TestConformance_BuildKit plays the scripts about builds once more, with
// BuildKit instead of buildah.
func TestConformance_BuildKit(t *testing.T) {
	testbed.NeedKernel(t)
	t.Setenv("PATH", testbed.BuildKit(t)+string(os.PathListSeparator)+os.Getenv("PATH"))
	playConformance(t, "build-*", "buildkit")
}

// TestConformance_SOPS plays the scripts about files of SOPS, for which it is
// built.
func TestConformance_SOPS(t *testing.T) {
	testbed.NeedKernel(t)
	t.Setenv("PATH", testbed.SOPS(t)+string(os.PathListSeparator)+os.Getenv("PATH"))
	playConformance(t, "secret-sops*", "")
}

// playConformance plays the scripts whose names match, on an agent that builds
// with builder.
func playConformance(t *testing.T, which, builder string) {
	scripts, err := filepath.Glob(filepath.Join(conformance, which+".txtar"))
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts %s: %v", which, err)
	}
	journal, devices, providers := filepath.Join(t.TempDir(), "journal"), t.TempDir(), t.TempDir()
	m := newMachine(t, "labels: {disk: ssd}", "journal: "+journal, "cdi: ["+devices+"]", "generic_resources: {SSD: 2}", "providers: "+providers)
	m.must(t, "ls") // starts the agent
	has := func(name string) (bool, error) {
		if name == "buildah" || name == "buildkit" {
			return name == builder, nil
		}
		return capability(name)
	}
	c := &tally{T: t, missing: map[string]string{}}
	t.Cleanup(func() { c.tell(t, scripts, has) })
	testscript.RunT(c, testscript.Params{
		Files: scripts,
		Setup: func(env *testscript.Env) error {
			env.Vars = append(env.Vars, "JOURNAL="+journal, "CDI_DIR="+devices, "PROVIDERS="+providers)
			return m.script(t, env)
		},
		Condition: has,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"berth": func(ts *testscript.TestScript, neg bool, args []string) {
				switch err := ts.Exec("berth", args...); {
				case err != nil && !neg:
					ts.Fatalf("berth %s: %v", strings.Join(args, " "), err)
				case err == nil && neg:
					ts.Fatalf("berth %s succeeded", strings.Join(args, " "))
				}
			},
			"datagrams": datagrams,
			"seal":      seal,
			"eventually": func(ts *testscript.TestScript, _ bool, args []string) {
				want := regexp.MustCompile("(?m)" + args[0])
				for begin := time.Now(); ; <-time.After(50 * time.Millisecond) {
					err := ts.Exec("berth", args[1:]...)
					out := ts.ReadFile("stdout")
					if want.MatchString(out) {
						return
					}
					if time.Since(begin) > 20*time.Second {
						ts.Fatalf("berth %s never printed %s: %v\n%s", strings.Join(args[1:], " "), want, err, out)
					}
				}
			},
		},
	})
}

// script gives a script its stack on m.
func (m *machine) script(t *testing.T, env *testscript.Env) error {
	name := strings.TrimPrefix(filepath.Base(env.WorkDir), "script-")
	home := filepath.Join(env.WorkDir, ".home")
	if err := os.Mkdir(home, 0o700); err != nil {
		return err
	}
	env.Vars = append(env.Vars,
		"PATH="+filepath.Dir(program(t, "berth"))+string(os.PathListSeparator)+os.Getenv("PATH"),
		"BERTH_ROOT="+m.root, "BERTH_RUN="+m.run, "BERTH_CONFIG="+m.config,
		"HOME="+home, // testscript's is /no-home, which root would make
		"BLOCKDEVICE="+blockDevice(), "ARCH="+runtime.GOARCH,
		"COMPOSE_PROJECT_NAME="+name, "REGISTRY="+mirror(t))
	env.Defer(func() {
		down := exec.Command(program(t, "berth"), "-p", name, "down", "--volumes", "--timeout", "0")
		down.Env = env.Vars
		if out, err := down.CombinedOutput(); err != nil {
			t.Errorf("take away %s: %v: %s", name, err, out)
		}
	})
	return nil
}

// datagrams opens a unix datagram socket and appends what it gets to a file, a
// line each.
func datagrams(ts *testscript.TestScript, _ bool, args []string) {
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: ts.MkAbs(args[0]), Net: "unixgram"})
	ts.Check(err)
	file, err := os.Create(ts.MkAbs(args[1]))
	ts.Check(err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 64<<10)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			fmt.Fprintf(file, "%s\n", buf[:n])
		}
	}()
	ts.Defer(func() {
		conn.Close()
		<-done
		file.Close()
	})
}

// seal encrypts a file as `age -r` does.
func seal(ts *testscript.TestScript, _ bool, args []string) {
	to, err := age.ParseX25519Recipient(strings.TrimSpace(ts.ReadFile("stdout")))
	ts.Check(err)
	var out bytes.Buffer
	w, err := age.Encrypt(&out, to)
	ts.Check(err)
	_, err = w.Write([]byte(ts.ReadFile(args[0])))
	ts.Check(err)
	ts.Check(w.Close())
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), out.Bytes(), 0o600))
}

// capability says what this machine has, for conditions in scripts.
func capability(name string) (bool, error) {
	there := func(path string) bool {
		_, err := os.Stat(path)
		return err == nil
	}
	cgroup2 := there("/sys/fs/cgroup/cgroup.controllers")
	switch name {
	case "cgroup2":
		return cgroup2, nil
	case "memsw": // cgroup v1 that accounts swap
		return there("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes"), nil
	case "blkio":
		return cgroup2 || there("/sys/fs/cgroup/blkio"), nil
	case "realtime":
		return there("/sys/fs/cgroup/cpu/cpu.rt_runtime_us"), nil
	case "blockdevice":
		return blockDevice() != "", nil
	case "runc", "sops":
		_, err := exec.LookPath(name)
		return err == nil, nil
	case "loop":
		return there("/dev/loop-control"), nil
	}
	return false, fmt.Errorf("unknown condition %q", name)
}

// blockDevice is the path of a whole disk of this machine, or "".
func blockDevice() string {
	disks, _ := filepath.Glob("/sys/class/block/*/queue")
	for _, d := range disks {
		path := "/dev/" + filepath.Base(filepath.Dir(d))
		if fi, err := os.Stat(path); err == nil && fi.Mode()&os.ModeDevice != 0 {
			return path
		}
	}
	return ""
}

// tally is a test that counts the scripts under it that are played, and knows
// what was missing for others.
type tally struct {
	*testing.T
	all *tally

	mu      sync.Mutex
	begun   []string
	missing map[string]string // by script
}

func (c *tally) Run(name string, f func(testscript.T)) {
	c.T.Run(name, func(t *testing.T) { // not for those that -run leaves out
		c.mu.Lock()
		c.begun = append(c.begun, name)
		c.mu.Unlock()
		f(&tally{T: t, all: c})
	})
}

func (c *tally) Skip(args ...any) {
	c.all.mu.Lock()
	c.all.missing[filepath.Base(c.Name())] = fmt.Sprint(args...)
	c.all.mu.Unlock()
	c.T.Skip(args...)
}

// guarded is a line of a script for a machine that has something, or lacks it.
var guarded = regexp.MustCompile(`(?m)^\[(!?)([a-z0-9]+)\] (.*)$`)

// tell logs how many scripts were played, those that were not and why, and
// those of which some lines were not.
func (c *tally) tell(t *testing.T, scripts []string, has func(string) (bool, error)) {
	slices.Sort(c.begun)
	t.Logf("conformance: %d of %d scripts played, %d for want of something, %d not asked for",
		len(c.begun)-len(c.missing), len(scripts), len(c.missing), len(scripts)-len(c.begun))
	for _, name := range c.begun {
		if why, skipped := c.missing[name]; skipped {
			t.Logf("not played: %s: this machine lacks %s", name, why)
			continue
		}
		text, err := os.ReadFile(filepath.Join(conformance, name+".txtar"))
		if err != nil {
			t.Error(err)
		}
		lines := map[string]int{} // by what they are for
		for _, m := range guarded.FindAllStringSubmatch(string(text), -1) {
			if ok, err := has(m[2]); err == nil && ok == (m[1] == "!") && !strings.HasPrefix(m[3], "skip ") {
				lines[m[1]+m[2]]++
			}
		}
		for _, condition := range slices.Sorted(maps.Keys(lines)) {
			t.Logf("in part: %s: %d lines are for [%s]", name, lines[condition], condition)
		}
	}
}

func (c *tally) Verbose() bool { return testing.Verbose() }

// TestConformance_ProvesEveryAttribute holds the scripts to the table of
// support: what Berth says it honours has a script that proves it.
func TestConformance_ProvesEveryAttribute(t *testing.T) {
	scripts, err := filepath.Glob(filepath.Join(conformance, "*.txtar"))
	if err != nil {
		t.Fatal(err)
	}
	proven := map[string]bool{}
	for _, path := range scripts {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			paths, ok := strings.CutPrefix(line, "# proves:")
			for _, p := range strings.Fields(paths) {
				// What is inside is proven with what holds it.
				for ok && p != "" && !proven[p] {
					proven[p] = true
					p = p[:max(0, strings.LastIndex(p, "."))]
				}
			}
		}
	}
	for _, a := range spec.Support() {
		// Attributes that jobs and pre_start steps have in common with services.
		shared := strings.HasPrefix(a.Path, "services.*.pre_start.[].") || strings.HasPrefix(a.Path, "jobs.*.")
		// An entry of a map is proven with the map.
		if a.Honoured && !proven[strings.TrimSuffix(a.Path, ".*")] && !shared {
			t.Errorf("no script proves %s", a.Path)
		}
	}
}

// TestConformance_ReadmeSaysHowMany holds the README's numbers to what is there.
func TestConformance_ReadmeSaysHowMany(t *testing.T) {
	scripts, err := filepath.Glob(filepath.Join(conformance, "*.txtar"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	all, honoured := spec.Support(), 0
	for _, a := range all {
		if a.Honoured {
			honoured++
		}
	}
	words := strings.Join(strings.Fields(string(text)), " ")
	for _, want := range []string{
		fmt.Sprintf("%d of %[1]d scripts", len(scripts)),
		fmt.Sprintf("Of %d attributes of Compose %d are", len(all), honoured),
	} {
		if !strings.Contains(words, want) {
			t.Errorf("README.md does not say %q", want)
		}
	}
}
