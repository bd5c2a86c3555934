package agent

import (
	"strings"
	"testing"
	"time"

	"berth/api"
	"berth/spec"
)

// sourced is a stack whose web has a secret, and whose db has another one.
func sourced(secret spec.File) spec.Stack {
	st := stackOf("shop",
		service("web", "web:1", func(s *spec.Service) { s.Secrets = []spec.FileMount{{Source: "s", Target: "/run/secrets/s"}} }),
		service("db", "db:1", func(s *spec.Service) { s.Secrets = []spec.FileMount{{Source: "other", Target: "/run/secrets/o"}} }),
	)
	secret.Key = "s"
	st.Secrets = map[string]spec.File{"s": secret, "other": {Key: "other", Content: []byte("other")}}
	st.Positions["secrets.s.file"] = spec.Position{File: st.Files[0], Line: 9, Col: 6}
	st.Positions["secrets.s.x-provider"] = spec.Position{File: st.Files[0], Line: 10, Col: 6}
	return st
}

func encrypted(text string) spec.File { return spec.File{Encrypted: "age", Content: []byte(text)} }

func provided(command string, args ...string) spec.File {
	return spec.File{Provider: &spec.Provider{Command: command, Args: args, Timeout: time.Second}}
}

func TestApply_EncryptedFile_ThePlainTextDecides(t *testing.T) {
	simulate(t, func(b *bench) {
		b.up(sourced(encrypted("age:host:swordfish")))
		b.expectTasks("db/1.1 running published", "web/1.1 running published")
		_, rev := b.w.stack("shop")
		if f := rev.Stack.Secrets["s"]; f.Encrypted != "" || f.Content != nil || f.Digest != b.secrets.Digest([]byte("swordfish")) {
			t.Errorf("the revision has %+v", f)
		}

		for _, same := range []spec.File{encrypted("age:host:swordfish#again"), {Content: []byte("swordfish")}} {
			p, err := b.plan(t.Context(), &api.ApplyRequest{Stack: sourced(same)})
			if err != nil || p.Changed {
				t.Errorf("the same content: %v, changed: %+v", err, p)
			}
			if applied := b.up(sourced(same)); applied.Changed {
				t.Error("the same content makes a revision")
			}
		}
		next := sourced(encrypted("age:host:tunafish"))
		p, err := b.plan(t.Context(), &api.ApplyRequest{Stack: next})
		if err != nil || !p.Changed || strings.Contains(planText(p), "fish") {
			t.Errorf("another content: %v\n%s", err, planText(p))
		}
		b.up(next)
		b.pass(time.Minute)
		b.expectTasks("db/1.1 running published", "web/1.2 running published")
	})
}

func TestApply_ProviderIsAskedEachTime_AChangeRollsItsUsers(t *testing.T) {
	simulate(t, func(b *bench) {
		b.secrets.answers = map[string]string{"vault": "one "}
		st := sourced(provided("vault", "kv"))
		b.up(st)
		b.expectTasks("db/1.1 running published", "web/1.1 running published")
		if b.up(st).Changed {
			t.Error("the same answer makes a revision")
		}
		b.secrets.answers["vault"] = "two "
		if p, err := b.plan(t.Context(), &api.ApplyRequest{Stack: st}); err != nil || !p.Changed {
			t.Errorf("plan of another answer: %+v, %v", p, err)
		}
		b.up(st)
		b.pass(time.Minute)
		b.expectTasks("db/1.1 running published", "web/1.2 running published")
		_, rev := b.w.stack("shop")
		if f := rev.Stack.Secrets["s"]; f.Provider != nil || f.Digest != b.secrets.Digest([]byte("two kv")) {
			t.Errorf("the revision has %+v", f)
		}
	})
}

func TestApply_SourceThatFails_ChangesNothing(t *testing.T) {
	simulate(t, func(b *bench) {
		b.secrets.answers = map[string]string{"vault": "one"}
		b.up(sourced(provided("vault")))
		for _, c := range []struct {
			file spec.File
			want string
		}{
			{encrypted("age:you:swordfish"), `:9:6: secret s: its file is not encrypted to this host`},
			{encrypted("age:host:" + strings.Repeat("x", maxSecret+1)), ":9:6: secret s: its file"},
			{provided("op"), ":10:6: secret s: there is no provider op"},
			{spec.File{Provider: &spec.Provider{Command: "vault", Timeout: time.Hour}}, "timeout is 1h0m0s; at most 1m0s"},
			{spec.File{Provider: &spec.Provider{Command: "vault"}}, "timeout is 0s; at most 1m0s"},
		} {
			_, planErr := b.plan(t.Context(), &api.ApplyRequest{Stack: sourced(c.file)})
			_, _, upErr := b.tryUp(sourced(c.file))
			for _, err := range []error{planErr, upErr} {
				if err == nil {
					t.Errorf("no error: %s", c.want)
					continue
				}
				e := problem(err)
				text := e.Position.String() + ": " + e.Detail
				if e.Code != api.CodeInvalid || !strings.Contains(text, c.want) || strings.Contains(text, "fish") {
					t.Errorf("%s %s, want %s", e.Code, text, c.want)
				}
				if e.Hint == "" && !strings.Contains(c.want, "timeout") {
					t.Errorf("no hint: %s", text)
				}
			}
		}
		b.expectTasks("db/1.1 running published", "web/1.1 running published")
	})
}

func TestApply_SeveralSourcesFail_AllAreTold(t *testing.T) {
	simulate(t, func(b *bench) {
		st := sourced(provided("op"))
		st.Secrets["other"] = spec.File{Key: "other", Encrypted: "age", Content: []byte("x")}
		e := b.mustFail(api.CodeInvalid, st)
		if !strings.Contains(e.Detail, "secret other: its file is not encrypted to this host\n") || !strings.Contains(e.Detail, "secret s: there is no provider op") {
			t.Errorf("detail %s", e.Detail)
		}
	})
}

func TestApply_SlowProvider_IsSaidToBeWaitedFor(t *testing.T) {
	for takes, want := range map[time.Duration]string{
		slowSource / 2: "", 2 * slowSource: "secret s: waiting for provider vault",
	} {
		simulate(t, func(b *bench) {
			b.secrets.answers = map[string]string{"vault": "one"}
			release := b.calls.hold("ask")
			time.AfterFunc(takes, release)
			var said []string
			if _, err := b.apply(b.t.Context(), &api.ApplyRequest{Stack: sourced(provided("vault"))}, func(p api.Progress) {
				if p.Message != "" {
					said = append(said, p.Message)
				}
			}); err != nil {
				t.Error(err)
			}
			if got := strings.Join(said, ", "); got != want {
				t.Errorf("%s: said %q", takes, got)
			}
		})
	}
}
