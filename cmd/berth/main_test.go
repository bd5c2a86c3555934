package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

var update = flag.Bool("update", false, "write what the commands print into the scripts")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"berth":  main,
		"berthd": berthd,
	})
}

// TestScripts runs the scripts in testdata/script. Each has an agent of its
// own, which answers with the files below agent/ of the script, unless the
// script is named noagent_….
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		UpdateScripts:       *update,
		RequireUniqueNames:  true,
		RequireExplicitExec: true,
		Setup:               setupScript,
		Condition: func(name string) (bool, error) {
			if name == "root" {
				return os.Geteuid() == 0, nil
			}
			return false, fmt.Errorf("unknown condition %q", name)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"sent":  cmdSent,
			"await": cmdAwait,
			"exits": cmdExits,
		},
	})
}

type agentKey struct{}

func setupScript(env *testscript.Env) error {
	run := filepath.Join(env.WorkDir, "run")
	env.Vars = append(env.Vars,
		"BERTH_RUN="+run, "BERTH_ROOT="+filepath.Join(env.WorkDir, "root"), "BERTH_CONFIG=",
		"HOME="+env.WorkDir, "TZ=UTC", "NO_COLOR=", "TERM=xterm", "CI=",
	)
	if strings.Contains(filepath.Base(env.WorkDir), "noagent_") {
		return nil
	}
	agent, stop, err := startAgent(filepath.Join(env.WorkDir, "agent"), run)
	if err != nil {
		return err
	}
	env.Defer(stop)
	env.Values[agentKey{}] = agent
	return nil
}

// sent TEXT checks that the agent was sent a request that contains TEXT.
func cmdSent(ts *testscript.TestScript, neg bool, args []string) {
	agent, _ := ts.Value(agentKey{}).(*scriptedAgent)
	found := len(agent.requests(args[0])) > 0
	if found == neg {
		ts.Fatalf("the agent was sent:\n%s", strings.Join(agent.requests(""), "\n"))
	}
}

// await TEXT waits until the agent was sent a request that contains TEXT.
func cmdAwait(ts *testscript.TestScript, _ bool, args []string) {
	agent, _ := ts.Value(agentKey{}).(*scriptedAgent)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	ts.Check(agent.await(ctx, args[0]))
}

// berthd is the agent that berth starts in scripts. It takes the flags of the
// real one and ends when its socket is removed, or after a minute.
func berthd() {
	flags := flag.NewFlagSet("berthd", flag.ExitOnError)
	root := flags.String("root", "", "")
	run := flags.String("run", "", "")
	config := flags.String("config", "", "")
	format := flags.String("format", "", "")
	args := os.Args[1:]
	if len(args) > 0 && args[0] == "doctor" {
		_ = flags.Parse(args[1:])
		text, err := os.ReadFile(filepath.Join(*root, "findings."+*format))
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Print(string(text))
		return
	}
	_ = flags.Parse(args)
	fmt.Println("config", *config)
	if _, err := os.Stat(filepath.Join(*root, "broken")); err == nil {
		fmt.Println("the store is damaged")
		os.Exit(3)
	}
	_, stop, err := startAgent(filepath.Join(*root, "agent"), *run)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	defer stop()
	for deadline := time.After(time.Minute); ; {
		select {
		case <-deadline:
			return
		case <-time.After(20 * time.Millisecond):
			if _, err := os.Stat(filepath.Join(*run, "api.sock")); err != nil {
				return
			}
		}
	}
}

// exits CODE COMMAND… runs a command that is to exit with this code.
func cmdExits(ts *testscript.TestScript, _ bool, args []string) {
	code := 0
	err := ts.Exec(args[1], args[2:]...)
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		code = failed.ExitCode()
	} else {
		ts.Check(err)
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}
