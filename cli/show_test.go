package cli

import (
	"os"
	"strings"
	"testing"
	"time"

	"berth/api"
)

func TestStatus_InDockersWords(t *testing.T) {
	now := begin.Add(3 * time.Hour)
	for _, c := range []struct {
		task api.Task
		want string
	}{
		{api.Task{State: api.TaskRunning, StartedAt: begin, Current: true}, "Up 3 hours"},
		{api.Task{State: api.TaskRunning, StartedAt: begin, Health: "healthy", Current: true}, "Up 3 hours (healthy)"},
		{api.Task{State: api.TaskRunning, StartedAt: begin, Health: "starting", Current: true}, "Up 3 hours (health: starting)"},
		{api.Task{State: api.TaskRunning, StartedAt: now.Add(time.Second), Current: true}, "Up Less than a second"},
		{api.Task{State: api.TaskRunning, StartedAt: begin, Health: "healthy"}, "Up 3 hours (draining)"},
		{api.Task{State: api.TaskRunning, StartedAt: begin, Health: "healthy", Ready: true}, "Up 3 hours (serving until replaced)"},
		{api.Task{State: api.TaskPaused, StartedAt: begin}, "Up 3 hours (Paused)"},
		{api.Task{State: api.TaskExited, ExitCode: 137, FinishedAt: begin, OOMKilled: true}, "Exited (137) 3 hours ago (out of memory)"},
		{api.Task{State: api.TaskRestarting, ExitCode: 1, FinishedAt: now.Add(-2 * time.Second)}, "Restarting (1) 2 seconds ago"},
		{api.Task{State: api.TaskCreated}, "Created"},
		{api.Task{State: api.TaskRemoving}, "Removal In Progress"},
	} {
		if got := Status(c.task, now); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

func TestPorts_EveryAddress_V6_Unpublished(t *testing.T) {
	got := Ports([]api.PortMapping{
		{Published: 80, Target: 8080, Protocol: "tcp"},
		{HostIP: "::1", Published: 53, Target: 53, Protocol: "udp"},
		{Target: 443, Protocol: "tcp"},
	})
	compare(t, got, "0.0.0.0:80->8080/tcp, [::1]:53->53/udp, 443/tcp")
}

func TestPlan_Texts(t *testing.T) {
	for _, c := range []struct {
		name string
		plan api.Plan
		want string
	}{
		{"new stack", api.Plan{Stack: "shop", Next: 1, Changed: true, Services: []api.PlanService{
			{Service: "web", Verb: api.PlanCreate, Tasks: 1, To: 1},
		}, Networks: []api.PlanResource{{Name: "shop_default", Verb: api.PlanCreate}}}, `shop: new, revision 1
  + web           1 task
  + shop_default  network
1 task created. ` + "`berth up`" + ` carries it out.
`},
		{"scaled and updated", api.Plan{Stack: "shop", Revision: 1, Next: 2, Changed: true, Services: []api.PlanService{
			{Service: "web", Verb: api.PlanScale, From: 3, To: 1, Tasks: 2},
			{Service: "api", Verb: api.PlanScale, From: 1, To: 4, Tasks: 3},
			{Service: "db", Verb: api.PlanUpdate, Tasks: 1, Changes: []api.PlanChange{{Path: "resources.memory", Old: "64 MiB", New: "128 MiB"}}},
		}}, `shop: revision 1 → 2
  ~ web  scaled from 3 to 1
  ~ api  scaled from 1 to 4
  ~ db   1 task, updated in place
      resource  memory: 64 MiB → 128 MiB
1 task updated in place, 3 created, 2 removed. ` + "`berth up`" + ` carries it out.
`},
		{"policy only", api.Plan{Stack: "shop", Revision: 1, Next: 2, Changed: true, Services: []api.PlanService{
			{Service: "web", Verb: api.PlanUnchanged, Tasks: 1},
		}}, `shop: revision 1 → 2
  = web  unchanged
No task changes. ` + "`berth up`" + ` carries it out.
`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b strings.Builder
			if err := WritePlan(Screen{Writer: &b}, c.plan); err != nil {
				t.Fatal(err)
			}
			compare(t, b.String(), c.want)
		})
	}
}

func TestPlan_EnvironmentValues_AreNeverShown(t *testing.T) {
	for _, c := range []api.PlanChange{
		{Path: "environment.PASSWORD", Old: "hunter1", New: "hunter2"},
		{Path: "environment.PASSWORD", New: "hunter2"},
		{Path: "environment.PASSWORD", Old: "hunter1"},
		{Path: "secrets.password", Old: "hunter1", New: "hunter2"},
	} {
		if _, text := planChange(c); strings.Contains(text, "hunter") {
			t.Errorf("%s: %q", c.Path, text)
		}
	}
}

func TestPlan_Content_IsNamedAsSuch(t *testing.T) {
	for path, want := range map[string]string{
		"configs.nginx.conf.content":   "config nginx.conf: content changed",
		"secrets.token.content":        "secret token: content changed",
		"mounts./etc/app.conf.content": "mount /etc/app.conf: content changed",
	} {
		if kind, text := planChange(api.PlanChange{Path: path, New: "changed"}); kind+" "+text != want {
			t.Errorf("%s: %s %s, want %s", path, kind, text, want)
		}
	}
}

func TestLogs_OnATerminal_NamesAndTextAreEscaped(t *testing.T) {
	var b strings.Builder
	p := NewLogPrinter(Screen{Writer: &b, Terminal: true}, LogStyle{}, "web-1")
	for _, text := range []string{"\x1b[31mred\x1b[0m\r\n", "\x1b]0;title\x07"} {
		if err := p.Print("web\x1b-1", api.LogEntry{Service: "web", Text: text}); err != nil {
			t.Fatal(err)
		}
	}
	compare(t, b.String(), "web\\x1b-1  | \x1b[31mred\x1b[0m\x1b[0m\nweb\\x1b-1  | \\x1b]0;title\\x07\n")
}

func TestLogs_EachServiceKeepsItsColour(t *testing.T) {
	p := NewLogPrinter(Screen{}, LogStyle{})
	web, db := p.colour("web"), p.colour("db")
	if web == db || p.colour("web") != web || p.colour("db") != db {
		t.Errorf("web %q, db %q, then %q, %q", web, db, p.colour("web"), p.colour("db"))
	}
}

func TestLiveStats_RoundIsDrawnWhole_AndGoneTasksLeave(t *testing.T) {
	var b strings.Builder
	live := NewLiveStats(Screen{Writer: &b})
	add := func(ids ...string) {
		for _, id := range ids {
			if err := live.Add(api.TaskStats{Task: id, Name: id}); err != nil {
				t.Fatal(err)
			}
		}
	}
	add("b", "a")
	if b.Len() > 0 {
		t.Fatalf("drawn before the round was whole: %q", b.String())
	}
	add("a")
	if first := b.String(); strings.Index(first, "\na ") > strings.Index(first, "\nb ") || strings.Contains(first, "\x1b") {
		t.Errorf("first round: %q", first)
	}
	b.Reset()
	add("a")
	if second := b.String(); !strings.HasPrefix(second, "\x1b[3A\r\x1b[J") || strings.Contains(second, "\nb ") {
		t.Errorf("second round: %q", second)
	}
}

func TestScreen_NotATerminal_HasNeitherColoursNorLiveLines(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if s := NewScreen(f, AnsiAuto); s.Colour || s.Live || s.Terminal || s.Paint(Bad, "x") != "x" {
		t.Errorf("auto: %+v", s)
	}
	if s := NewScreen(f, AnsiAlways); !s.Colour || s.Live || s.Paint(Bad, "x") != "\x1b[31mx\x1b[0m" {
		t.Errorf("always: %+v", s)
	}
}

func TestSplitReference(t *testing.T) {
	for ref, want := range map[string][2]string{
		"nginx:1.28":              {"nginx", "1.28"},
		"localhost:5000/web":      {"localhost:5000/web", ""},
		"localhost:5000/web:v1":   {"localhost:5000/web", "v1"},
		"nginx:1@sha256:01234567": {"nginx", "1"},
		"":                        {"", ""},
	} {
		if repository, tag := splitReference(ref); repository != want[0] || tag != want[1] {
			t.Errorf("%q: %q, %q", ref, repository, tag)
		}
	}
}
