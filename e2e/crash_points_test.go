package e2e_test

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"berth/api"
	"berth/testbed"
)

// mortal is what the rounds roll out: replicas behind a port, a one-shot before
// them, and a service that is replaced stop-first, ignores its stop signal, has
// a volume that is filled from the image and writes more than its log may hold.
const mortal = `
services:
  migrate:
    image: busybox
    command: sh -c 'echo VERSION >>/log/runs; sleep 0.3'
    volumes: ["log:/log"]
    restart: "no"
  web:
    image: berth-testbed/tiny
    entrypoint: WEB
    command: -text VERSION
    ports: ["8093:8080"]
    configs: [page]
    depends_on: {migrate: {condition: service_completed_successfully}}
    x-drain: 2s
    deploy:
      replicas: 2
      resources: {limits: {memory: LIMIT}}
      update_config: {parallelism: 0, monitor: 0s, failure_action: FAILURE}
      rollback_config: {monitor: 0s}
  db:
    image: busybox
    command: sh -c 'trap "" TERM HUP; while sleep 0.2; do seq 1 100; done'
    stop_grace_period: 100ms
    environment: {VERSION: VERSION}
    volumes: ["data:/usr/share"]
    configs: [hot]
    secrets: [word]
    post_start: [{command: ["HOOK"]}]
    pre_stop: [{command: ["true"]}]
    logging: {options: {max-size: 1k}}
    deploy: {update_config: {monitor: 0s}, rollback_config: {monitor: 0s}}
jobs:
  tick: {image: busybox, command: "true", triggers: {manual: true}}
configs:
  page: {content: VERSION}
  hot: {content: "limit LIMIT", x-on-change: "signal:HUP"}
secrets:
  word: {external: true}
volumes: {data: {}, log: {}}
`

// bystander is what must not notice any of it.
const bystander = `
services:
  steady:
    image: berth-testbed/tiny
    command: -text steady
    ports: ["8094:8080"]
    x-drain: 0s
`

const (
	good     = "/app"
	notThere = "/not/there"
)

// round is one change of the stack in which the agent is killed at point after
// point: at each it dies, and the next one, which goes on with what it finds,
// dies at the next. The last one lives.
type round struct {
	name string
	// before edits the file or makes trouble, ask is the command that brings the
	// change about.
	before func(*testing.T, *victim)
	ask    []string
	// again: the points lie before the change is committed, so it has to be
	// asked for each time.
	again bool
	// still: the command rolls nothing.
	still bool
	// late: what it changes comes with the next up.
	late bool
	// points are in the order in which agents meet them.
	points []string
	// while is looked at after each death, after when all is over.
	while, after func(*testing.T, *victim)
	// ends is the state in which the rollout ends: all by itself, but after
	// again. "": the stack is gone.
	ends string
}

// compose fills mortal in.
type compose struct {
	version             int
	web, limit, failure string
	hook                string // of db, after its start
}

func (c *compose) text() string {
	return strings.NewReplacer(
		"VERSION", "v"+strconv.Itoa(c.version), "WEB", c.web, "LIMIT", c.limit, "FAILURE", c.failure, "HOOK", c.hook,
	).Replace(mortal)
}

func nextVersion(_ *testing.T, v *victim) { v.compose.version++ }

var (
	up   = []string{"up", "-d"}
	down = []string{"down", "--volumes"}
)

var rounds = slices.Concat(lifeRounds, secretRounds, lastRounds)

var lifeRounds = []round{{
	name: "a first up, not committed", ask: up, again: true, ends: api.RolloutComplete,
	points: []string{
		"content.stored", "blob.downloaded", "blob.renamed", "layer.unpacked", "image.discarded",
		"layer.renamed", "layers.synced", "image.recorded", "apply.resolved", "apply.commit", "network.ensured",
	},
}, {
	name: "a removal, not committed", ask: down, again: true,
	points: []string{"stack.change", "stack.changed"},
}, {
	name: "a first up", ask: up, ends: api.RolloutComplete,
	points: []string{
		"apply.committed", "bridge.made", "guard.applied", "rules.applied", "traffic.ruled",
		"snapshot.written", "volume.made", "seed.marked", "seed.copied", "recover.adopted",
	},
}, {
	name: "the dataplane is gone", ends: api.RolloutComplete,
	before: func(t *testing.T, v *victim) {
		for _, pid := range processes("dataplane", v.run) {
			kill(t, pid)
		}
	},
	points: []string{"dataplane.started"},
}, {
	name: "tasks are made", before: nextVersion, ask: up, ends: api.RolloutComplete,
	points: []string{
		"task.record", "task.recorded", "netns.file", "netns.pinned", "veth.made", "rootfs.mounted",
		"secrets.mounted", "task.furnished", "recover.swept", "bundle.made", "bundle.written", "conmon.begun",
		"conmon.creating", "conmon.reported", "container.created", "start.marked", "start.called",
	},
}, {
	name: "tasks are noted", before: nextVersion, ask: up, ends: api.RolloutComplete,
	points: []string{"container.started", "task.started"},
}, {
	name: "tasks follow one another", before: nextVersion, ask: up, ends: api.RolloutComplete,
	points: []string{
		"withdraw.noted", "withdraw.synced", "stop.noted", "stop.signalled", "kill.noted", "kill.signalled",
		"exit.noted", "notes.flush", "notes.flushed", "recover.resumed", "publish.noted", "publish.synced",
	},
}, {
	name: "tasks are removed", before: nextVersion, ask: up, ends: api.RolloutComplete,
	points: []string{
		"container.killed", "container.deleted", "conmon.ended", "unmake.container", "veth.deleted", "unmake.network",
		"unmake.rootfs", "secrets.unmounted", "unmake.run", "task.unmade", "task.removed", "log.removed",
		"rollout.change", "rollout.completed",
	},
}, {
	name: "limits and a config change in place", ask: up, ends: api.RolloutComplete,
	before: func(_ *testing.T, v *victim) { v.compose.limit = "96m" },
	points: []string{"secrets.rewritten", "contents.written", "update.applied"},
}, {
	name: "a bad version", ask: up, ends: api.RolloutRolledBack,
	before: func(_ *testing.T, v *victim) { v.compose.version, v.compose.web = v.compose.version+1, notThere },
	points: []string{"task.unstartable", "rollback.commit", "rollback.committed", "rollout.completed"},
}, {
	name: "a bad version that pauses", ask: up, ends: api.RolloutPaused,
	before: func(_ *testing.T, v *victim) { v.compose.version, v.compose.failure = v.compose.version+1, "pause" },
	points: []string{"rollout.paused"},
}, {
	name: "a resumption", ask: []string{"rollout", "resume"}, ends: api.RolloutPaused,
	points: []string{"rollout.resumed"},
}, {
	name: "a good version after it", ask: up, ends: api.RolloutComplete,
	before: func(_ *testing.T, v *victim) {
		v.compose.version, v.compose.web, v.compose.failure = v.compose.version+1, good, "rollback"
	},
	points: []string{"apply.committed", "task.started:2", "rollout.completed"},
}, {
	name: "hooks", before: nextVersion, ask: up, ends: api.RolloutComplete,
	points: []string{"prestop.done", "hook.run", "poststart.done"},
}, {
	name: "a hook that fails", ask: up, ends: api.RolloutRolledBack,
	before: func(_ *testing.T, v *victim) { v.compose.version, v.compose.hook = v.compose.version+1, "false" },
	points: []string{"poststart.failed", "rollback.committed"},
}, {
	name: "a good version after that", ask: up, ends: api.RolloutComplete,
	before: func(_ *testing.T, v *victim) { v.compose.version, v.compose.hook = v.compose.version+1, "true" },
	points: []string{"rollout.completed"},
}, {
	name: "a job", ask: []string{"job", "run", "tick"}, still: true, again: true, ends: api.RolloutComplete,
	points: []string{"job.run"},
}}

var lastRounds = []round{{
	name: "logs grow", ends: api.RolloutComplete,
	points: []string{"log.shifted"},
}, {
	name: "one-off tasks", ask: []string{"run", "--rm", "-d", "--no-deps", "db", "true"}, still: true, again: true, ends: api.RolloutComplete,
	points: []string{"oneoff.record", "oneoff.recorded", "oneoff.unmade", "oneoff.emptied", "oneoff.removed"},
}, {
	name: "a removal", ask: down,
	points: []string{
		"stop.noted", "network.unruled", "network.unmade", "network.removed", "stack.emptied",
		"volume.renamed", "stack.forget", "stack.forgotten",
	},
}}

// lastStack is met when the last stack of a machine goes.
const lastStack = "rules.deleted"

// TestCrash_AtEveryPoint_TheNextAgentEndsIt kills the agent at every named
// point of real rollouts. Each ends by itself, complete or rolled back; what
// serves goes on serving, and nothing is left.
func TestCrash_AtEveryPoint_TheNextAgentEndsIt(t *testing.T) {
	testbed.NeedKernel(t)
	m := newMachine(t)
	v := &victim{stack: m.stack(t, "mortal", mortal), compose: compose{version: 1, web: good, limit: "64m", failure: "rollback", hook: "true"}}
	v.write(t, wordFile, "word")
	v.write(t, "compose.yaml", v.compose.text())
	v.start(t, "")
	v.answers(t)
	v.must(t, "secret", "set", "word", "--file", filepath.Join(filepath.Dir(v.file), wordFile))
	recipients := v.must(t, "secret", "recipient") // of files, which a re-key keeps
	v.other = m.stack(t, "bystander", bystander)
	v.other.up(t)
	pids := v.other.pids(t)
	loads := map[string]*load{"steady": trickle(t, "http://127.0.0.1:8094/")}
	for i, r := range rounds {
		begin := time.Now()
		v.round(t, r)
		t.Logf("%s: %d deaths, %.1f s", r.name, len(r.points), time.Since(begin).Seconds())
		if r.name == "a first up" {
			loads["web"] = trickle(t, "http://127.0.0.1:8093/")
		}
		if i == len(rounds)-2 {
			loads["web"].end()
		}
	}
	for name, l := range loads {
		l.end()
		t.Logf("%s answered: %v", name, l.answers())
		if failed := l.failures(); len(failed) > 0 {
			t.Errorf("%s: %d requests failed, the first with\n%s", name, len(failed), strings.Join(failed[:min(5, len(failed))], "\n"))
		}
	}
	if after := v.other.pids(t); !maps.Equal(pids, after) {
		t.Errorf("processes that nobody changed were %v and are %v", pids, after)
	}
	v.start(t, lastStack)
	v.answers(t)
	if now := v.must(t, "secret", "recipient"); now != recipients {
		t.Errorf("the recipients of encrypted files were\n%s\nand are\n%s", recipients, now)
	}
	down := v.other.begin(t, "down")
	v.dies(t, "the last removal", lastStack)
	down.wait(t, 10*time.Second)
	v.start(t, "")
	v.answers(t)
	eventually(t, 10*time.Second, func() error {
		if left := run(t, "nft", "list", "tables"); left != "" || len(guards(t)) > 0 {
			return fmt.Errorf("rules are left: %s%v", left, guards(t))
		}
		return nil
	})
}

// victim is a stack whose agent dies.
type victim struct {
	*stack
	other   *stack // what must not notice
	compose compose
	agent   *exec.Cmd
	dead    chan struct{} // closes with the end of agent
	// word is what db has as its secret, and wordPid is db's process.
	word    string
	wordPid int
}

// round kills one agent per point, and waits for what the last one makes of it.
func (v *victim) round(t *testing.T, r round) {
	t.Helper()
	if r.before != nil {
		r.before(t, v)
	}
	v.write(t, "compose.yaml", v.compose.text())
	before := v.state(t)
	var asked *started
	for i, point := range r.points {
		v.start(t, point)
		if r.ask != nil && (i == 0 || r.again) && v.answers(t) { // it may die at its start
			asked = v.begin(t, v.asks(r)...)
		}
		v.dies(t, r.name, point)
		if asked != nil {
			asked.wait(t, 10*time.Second)
		}
		if r.while != nil {
			r.while(t, v)
		}
	}
	v.start(t, "")
	v.answers(t)
	if r.again {
		v.must(t, v.asks(r)...)
	}
	if r.late {
		v.must(t, up...)
	}
	if r.after != nil {
		defer r.after(t, v)
	}
	if r.ends == "" {
		v.isGone(t)
		return
	}
	rolls := r.ask != nil && !r.still
	eventually(t, 30*time.Second, func() error {
		ro := v.state(t)
		if ro.State != r.ends || rolls && ro.StartedAt.Equal(before.StartedAt) && r.ends != api.RolloutPaused {
			return fmt.Errorf("%s: it is %s (%s): %+v", r.name, ro.State, ro.Reason, ro.Services)
		}
		return nil
	})
	if r.ends == api.RolloutComplete {
		v.isUp(t, r.name)
	}
}

// start starts an agent that dies at a point, if there is one, in place of the
// one that runs, if one does.
func (v *victim) start(t *testing.T, point string) {
	t.Helper()
	v.end(t)
	log, err := os.OpenFile(filepath.Join(v.root, "agent.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		err = os.MkdirAll(v.root, 0o711)
		if err == nil {
			log, err = os.Create(filepath.Join(v.root, "agent.log"))
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	fmt.Fprintf(log, "--- an agent that dies at %q\n", point)
	bin, err := mortalAgent()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "--root", v.root, "--run", v.run, "--config", v.config)
	cmd.Env = append(os.Environ(), "BERTH_CRASH="+point)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if v.agent == nil {
		t.Cleanup(func() { v.end(t) })
	}
	v.agent, v.dead = cmd, make(chan struct{})
	go func() {
		defer close(v.dead)
		_ = cmd.Wait() // its state tells
	}()
}

// end kills the agent that runs, also one that a command has started which
// found none.
func (v *victim) end(t *testing.T) {
	t.Helper()
	if v.agent != nil {
		_ = v.agent.Process.Kill() // it may have ended
		<-v.dead
		if pid := v.agentPid(t); slices.Contains(processes("berthd", v.root), pid) && alive(pid) {
			kill(t, pid)
		}
	}
}

// asks is the command of a round, which may name files beside the Compose file.
func (v *victim) asks(r round) []string {
	out := slices.Clone(r.ask)
	for i := range out {
		if slices.Contains([]string{wordFile, exportFile, keyFile}, out[i]) {
			out[i] = filepath.Join(filepath.Dir(v.file), out[i])
		}
	}
	return out
}

// answers waits until the agent does; false: it is dead.
func (v *victim) answers(t *testing.T) (alive bool) {
	t.Helper()
	client := api.NewClient(api.Socket(v.run))
	defer client.Close()
	eventually(t, 20*time.Second, func() error {
		select {
		case <-v.dead:
			return nil
		default:
		}
		_, err := client.Info(t.Context())
		alive = err == nil
		return err
	})
	return alive
}

// dies waits until the agent has killed itself.
func (v *victim) dies(t *testing.T, round, point string) {
	t.Helper()
	select {
	case <-v.dead:
	case <-time.After(20 * time.Second):
		t.Fatalf("%s: the agent does not come to %s: %+v", round, point, v.state(t))
	}
	if status := v.agent.ProcessState.Sys().(syscall.WaitStatus); status.Signal() != syscall.SIGKILL {
		t.Fatalf("%s: the agent did not die at %s: %s", round, point, v.agent.ProcessState)
	}
}

// state is how the rollout stands; zero if there is no such stack.
func (v *victim) state(t *testing.T) api.Rollout {
	t.Helper()
	client := api.NewClient(api.Socket(v.run))
	defer client.Close()
	ro, _ := client.Rollout(t.Context(), v.name) // the agent may be dead
	return ro
}

// isUp wants the stack as its file has it, nothing to do for another up, and no
// trace of tasks that were given up.
func (v *victim) isUp(t *testing.T, round string) {
	t.Helper()
	revision := v.state(t).Revision
	v.must(t, up...)
	if now := v.state(t).Revision; now != revision {
		t.Errorf("%s: another up made revision %d of %d", round, now, revision)
	}
	want := "v" + strconv.Itoa(v.compose.version)
	if body, err := fetch("http://127.0.0.1:8093/"); err != nil || strings.TrimSpace(body) != want {
		t.Errorf("%s: web serves %q, %v; want %s", round, body, err, want)
	}
	if hot := v.sh(t, "db", "cat /hot"); hot != "limit "+v.compose.limit {
		t.Errorf("%s: db has a config with %q", round, hot)
	}
	known, running := map[string]bool{}, map[string]int{}
	for _, c := range append(v.ps(t), v.other.ps(t)...) {
		known[c.ID] = true
		if c.State == api.TaskRunning {
			running[c.Service]++
		}
	}
	if want := map[string]int{"web": 2, "db": 1, "steady": 1}; !maps.Equal(running, want) {
		t.Errorf("%s: these run: %v, want %v", round, running, want)
	}
	v.holds(t, round, known)
	runs, err := os.ReadFile(filepath.Join(v.root, "volumes", v.name+"_log", "data", "runs"))
	if n := strings.Count(string(runs), want+"\n"); err != nil || n != 1 {
		t.Errorf("%s: migrate ran %d times for %s, %v", round, n, want, err)
	}
}

// holds wants nothing of tasks but those that are known.
func (v *victim) holds(t *testing.T, round string, known map[string]bool) {
	t.Helper()
	eventually(t, 5*time.Second, func() error {
		for _, dir := range []string{
			filepath.Join(v.run, "c"), filepath.Join(v.run, "tasks"), filepath.Join(v.run, "netns"),
			filepath.Join(v.run, "secrets"), filepath.Join(v.root, "tasks"),
		} {
			entries, err := os.ReadDir(dir)
			if err != nil {
				return err
			}
			for _, e := range entries {
				if !known[e.Name()] {
					return fmt.Errorf("%s: %s is left", round, filepath.Join(dir, e.Name()))
				}
			}
		}
		return nil
	})
}

// isGone wants nothing of the stack but its file.
func (v *victim) isGone(t *testing.T) {
	t.Helper()
	eventually(t, 30*time.Second, func() error {
		out := v.machine.must(t, "ls", "-a", "-q") + v.machine.must(t, "volume", "ls", "-q") + v.machine.must(t, "network", "ls", "-q")
		if strings.Contains(out, v.name) {
			return fmt.Errorf("there is still\n%s", out)
		}
		return nil
	})
	known := map[string]bool{}
	for _, c := range v.other.ps(t) {
		known[c.ID] = true
	}
	v.holds(t, "a removal", known)
}

// mortalAgent builds a berthd that can be told to die, once.
var mortalAgent = sync.OnceValues(func() (string, error) {
	path := filepath.Join(programs, "berthd-crashpoints")
	cmd := exec.Command("go", "build", "-tags", "crashpoints", "-o", path, "../cmd/berthd")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build an agent with crash points: %w: %s", err, out)
	}
	return path, nil
})

// TestCrash_EveryPoint_HasItsRound: a point that nobody dies at is none.
func TestCrash_EveryPoint_HasItsRound(t *testing.T) {
	there := crashPoints(t)
	dies := map[string]bool{}
	for _, r := range rounds {
		for _, p := range r.points {
			name, _, _ := strings.Cut(p, ":")
			dies[name] = true
		}
	}
	dies[lastStack] = true
	form := regexp.MustCompile(`^[a-z]+\.[a-z]+$`)
	for name, at := range there {
		if len(at) > 1 {
			t.Errorf("point %s is at %s", name, strings.Join(at, " and "))
		}
		if !form.MatchString(name) {
			t.Errorf("%s: point %q is not NOUN.WHAT", at[0], name)
		}
		if !dies[name] {
			t.Errorf("%s: the agent is not killed at %s by any test", at[0], name)
		}
	}
	for name := range dies {
		if there[name] == nil {
			t.Errorf("there is no point %s any more", name)
		}
	}
	if len(there) < 40 {
		t.Errorf("there are %d points; are all found?", len(there))
	}
}

// crashPoints finds all points in the source, and where they are.
func crashPoints(t *testing.T) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "testdata" || d.Name() == "bin" || strings.HasPrefix(d.Name(), ".") && d.Name() != ".."):
			return fs.SkipDir
		case !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			f, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || f.Sel.Name != "At" {
				return true
			}
			if x, ok := f.X.(*ast.Ident); !ok || x.Name != "crash" {
				return true
			}
			at := strings.TrimPrefix(set.Position(call.Pos()).String(), "../")
			name := ""
			if lit, ok := call.Args[0].(*ast.BasicLit); ok {
				name, _ = strconv.Unquote(lit.Value)
			}
			out[name] = append(out[name], at)
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
