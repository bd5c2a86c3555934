package agent

import (
	"strings"
	"testing"
	"time"

	"berth/api"
	"berth/runtime"
	"berth/spec"
)

// withVariable is a stack whose service has a secret as a variable, too.
func withVariable(content string) spec.Stack {
	st := stackOf("shop", service("web", "web:1", func(s *spec.Service) {
		s.User = "1000:1001"
		s.Secrets = []spec.FileMount{
			{Source: "pw", Target: "/run/secrets/pw", Mode: 0o400, Env: "DB_PASSWORD"},
			{Source: "pw", Target: "/run/secrets/other", Mode: 0o444},
		}
	}))
	st.Secrets = map[string]spec.File{"pw": {Key: "pw", Name: "pw", Content: []byte(content)}}
	st.Positions = map[string]spec.Position{"services.web.secrets.0": {File: "compose.yaml", Line: 7, Col: 9}}
	return st
}

func TestVariable_OfASecret_OnlyInTheTasksOwnTmpfs(t *testing.T) {
	simulate(t, func(b *bench) {
		b.up(withVariable("pass word\r\n"))
		id := b.id("web/1.1")
		b.secrets.mu.Lock()
		files := b.secrets.delivered[id]
		b.secrets.mu.Unlock()
		env := files[len(files)-1]
		if env.Name != "env" || string(env.Content) != "DB_PASSWORD=pass word\x00" || env.UID != 1000 || env.GID != 1001 || env.Mode != 0o400 {
			t.Errorf("delivered: %+v %q", env, env.Content)
		}
		c := b.containers.all[id].c
		if !strings.HasSuffix(c.EnvFile, "/"+id+"/env") || strings.Contains(strings.Join(c.Env, " "), "DB_PASSWORD") {
			t.Errorf("container: env file %q, env %q", c.EnvFile, c.Env)
		}
		if core, ok := c.Ulimits["core"]; !ok || core != (runtime.Ulimit{}) {
			t.Errorf("core dumps of a service with secrets: %+v", c.Ulimits)
		}
		b.up(withVariable("other"))
		b.pass(time.Minute)
		b.expectTasks("web/1.2 running published")
		if got := b.secrets.seen(b.id("web/1.2")); got != "other other DB_PASSWORD=other\x00" {
			t.Errorf("after a change the task has %q", got)
		}
	})
}

func TestVariable_OfWhatNoVariableHolds_IsRefusedWithItsPlace(t *testing.T) {
	simulate(t, func(b *bench) {
		b.up(withVariable("good"))
		for content, says := range map[string]string{
			"a\x00b":                      "secret pw as variable DB_PASSWORD: byte 2 is NUL",
			strings.Repeat("x", 128<<10):  "it has 131072 bytes, and a variable can have 131059",
			strings.Repeat("x", 131059+1): "it has 131060 bytes",
		} {
			st := withVariable(content)
			if _, err := b.plan(t.Context(), &api.ApplyRequest{Stack: st}); err == nil || !strings.Contains(err.Error(), says) {
				t.Errorf("plan: %v", err)
			}
			e := b.mustFail(api.CodeInvalid, st)
			if !strings.Contains(e.Detail, says) || strings.Contains(e.Detail, "xxx") {
				t.Errorf("up: %v", e)
			}
		}
		b.up(withVariable(strings.Repeat("x", 131059)))
	})
}

func TestExit_TheSecretsOfATaskAreGone(t *testing.T) {
	simulate(t, func(b *bench) {
		b.up(withVariable("good"), func(r *api.ApplyRequest) {
			s := r.Stack.Services["web"]
			s.Restart.Condition = spec.RestartNo
			r.Stack.Services["web"] = s
		})
		id := b.id("web/1.1")
		b.containers.exit(id, 1)
		b.pass(time.Second)
		if got := b.secrets.seen(id); got != "" {
			t.Errorf("an exited task has %q", got)
		}
	})
}

func TestExit_WhileNoAgentRuns_TheSecretsAreGone(t *testing.T) {
	simulate(t, func(b *bench) {
		b.up(withVariable("good"))
		id := b.id("web/1.1")
		b.crash(func() { b.containers.exit(id, 1) })
		b.pass(time.Second)
		if got := b.secrets.seen(id); got != "" {
			t.Errorf("a task that has exited has %q", got)
		}
	})
}
