package agent

import (
	"strings"
	"testing"
	"time"

	"berth/api"
	"berth/spec"
)

// templated is a stack whose two services have a template; it uses a secret.
func templated(text, password, onChange string) spec.Stack {
	st := stackOf("shop",
		service("web", "web:1", func(s *spec.Service) {
			s.Replicas = 2
			s.Environment = map[string]string{"LEVEL": "debug"}
			s.Configs = []spec.FileMount{{Source: "app", Target: "/app", Mode: 0o444, OnChange: onChange}}
			s.Secrets = []spec.FileMount{{Source: "pw", Target: "/run/secrets/pw", Mode: 0, OnChange: onChange}}
		}),
		service("other", "web:1", func(s *spec.Service) {
			s.Configs = []spec.FileMount{{Source: "plain", Target: "/plain", Mode: 0o444}}
		}),
	)
	st.Configs = map[string]spec.File{
		"app":   {Key: "app", Name: "app", Content: []byte(text), Template: true, OnChange: onChange},
		"plain": {Key: "plain", Name: "plain", Content: []byte("{{as it is}}")},
	}
	st.Secrets = map[string]spec.File{"pw": {Key: "pw", Name: "pw", Content: []byte(password), OnChange: onChange}}
	st.Positions = map[string]spec.Position{
		"services.web.configs.0": {File: "compose.yaml", Line: 7, Col: 9},
		"configs.app":            {File: "compose.yaml", Line: 20, Col: 3},
	}
	return st
}

func TestTemplate_IsFilledInForEachTask_AndItsUsersRoll(t *testing.T) {
	const text = `{{.Task.Name}} {{.Task.Slot}} {{.Service.Name}} {{.Stack.Name}} {{env "LEVEL"}} {{secret "pw"}}`
	simulate(t, func(b *bench) {
		b.up(templated(text, "one\n", ""))
		if got := b.secrets.seen(b.id("web/2.1")); got != "shop-web-2 2 web shop debug one one\n" {
			t.Errorf("web-2 sees %q", got)
		}
		if got := b.secrets.seen(b.id("other/1.1")); got != "{{as it is}}" {
			t.Errorf("what is no template became %q", got)
		}
		b.secrets.mu.Lock()
		for _, content := range b.secrets.contents {
			if strings.Contains(string(content), "shop-web") {
				t.Errorf("the store has %q", content)
			}
		}
		b.secrets.mu.Unlock()
		b.up(templated(text, "two", ""))
		b.pass(time.Minute)
		b.expectTasks("other/1.1 running published", "web/1.2 running published", "web/2.2 running published")
		if got := b.secrets.seen(b.id("web/1.2")); got != "shop-web-1 1 web shop debug two two" {
			t.Errorf("after the rotation web-1 sees %q", got)
		}
	})
}

func TestTemplate_OnChangeSignal_IsFilledInAgainInPlace(t *testing.T) {
	const text, signal = `{{.Task.Slot}} {{secret "pw"}}`, "signal:SIGHUP"
	simulate(t, func(b *bench) {
		handlesHUP(b)
		b.up(templated(text, "one", signal))
		b.calls.reset()
		b.up(templated(text, "two", signal))
		b.expectCalls("create")
		if got := b.secrets.seen(b.id("web/2.1")); got != "2 two two" {
			t.Errorf("web-2 sees %q", got)
		}
		b.calls.reset()
		b.up(templated("v2 "+text, "two", signal))
		if got := b.secrets.seen(b.id("web/2.1")); got != "v2 2 two two" {
			t.Errorf("web-2 sees %q", got)
		}
	})
}

func TestTemplate_Mistakes_ChangeNothing(t *testing.T) {
	simulate(t, func(b *bench) {
		b.up(templated(`{{secret "pw"}}`, "one", ""))
		b.calls.reset()
		for text, says := range map[string]string{
			"\n{{if false}}{{secret \"none\"}}{{end}}": `compose.yaml:7:9: config app: line 2 of the template: service web has no secret "none"`,
			`{{env "NONE"}}`:         `compose.yaml:7:9: config app: line 1 of the template: service web has no variable "NONE"`,
			`{{config "app"}}`:       `compose.yaml:7:9: config app: line 1 of the template: config "app" is a template itself`,
			"\n\n{{end}}":            `compose.yaml:20:3: config app: line 3 of the template: unexpected {{end}}`,
			`{{.Task.Size}}`:         `compose.yaml:7:9: config app: line 1 of the template: there is no field Size`,
			`{{range 99999}}{{end}}`: `compose.yaml:7:9: config app: its loops turn too often`,
		} {
			_, err := b.plan(t.Context(), &api.ApplyRequest{Stack: templated(text, "one", "")})
			for _, p := range []*api.Error{problem(err), b.mustFail(api.CodeInvalid, templated(text, "one", ""))} {
				if got := p.Position.String() + ": " + p.Detail; got != says {
					t.Errorf("%q: %s, want %s", text, got, says)
				}
			}
		}
		b.expectCalls("create deliver rewrite signal")
	})
}

func TestTemplate_PlanSaysWhatItsContentsChange(t *testing.T) {
	simulate(t, func(b *bench) {
		b.up(templated(`{{secret "pw"}}`, "one", ""))
		if p, err := b.plan(t.Context(), &api.ApplyRequest{Stack: templated(`{{secret "pw"}}`, "one", "")}); err != nil || p.Changed {
			t.Fatalf("nothing has changed: %+v, %v", p, err)
		}
		labelled := templated(`{{secret "pw"}}`, "one", "")
		web := labelled.Services["web"]
		web.DeployLabels = map[string]string{"team": "blue"}
		labelled.Services["web"] = web
		for _, c := range []struct {
			st   spec.Stack
			verb string
			want string
		}{
			{templated(`{{secret "pw"}}`, "two", ""), api.PlanReplace, "configs.app.content secrets.pw.content"},
			{labelled, api.PlanUnchanged, ""},
		} {
			p, err := b.plan(t.Context(), &api.ApplyRequest{Stack: c.st})
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range p.Services {
				if s.Service != "web" {
					continue
				}
				var paths []string
				for _, change := range s.Changes {
					paths = append(paths, change.Path)
				}
				if got := strings.Join(paths, " "); s.Verb != c.verb || got != c.want {
					t.Errorf("%s: %s, want %s: %s", s.Verb, got, c.verb, c.want)
				}
			}
		}
	})
}
