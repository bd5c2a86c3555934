package cli

import (
	"strings"
	"testing"
	"time"

	"berth/api"
	"berth/spec"
)

// utc makes local times those of UTC.
func utc(t *testing.T) {
	t.Helper()
	local := time.Local
	time.Local = time.UTC
	t.Cleanup(func() { time.Local = local })
}

func TestRollout_Paused_SaysWhyAndWhatNext(t *testing.T) {
	utc(t)
	var b strings.Builder
	err := WriteRollout(Screen{Writer: &b}, api.Rollout{
		Stack: "shop", Revision: 8, From: 7, State: api.RolloutPaused, Reason: "web-1 exited 3: \"no\x1b[2J\"",
		StartedAt: begin, Actor: "alice@tower\x07",
		Services: []api.ServiceStatus{
			{Service: "db", Phase: api.PhaseReady, Replicas: 1, Updated: 1, Ready: 1, Available: 1},
			{Service: "web", Phase: api.PhaseStarting, Replicas: 3, Updated: 1, Ready: 3, Old: 2, Reason: "web-2 waits for the rollout to be resumed"},
		},
	}, begin.Add(3*time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	compare(t, b.String(), "shop: revision 7 → 8  paused\n"+
		"  began    03:04:05 (3 minutes ago) by alice@tower\\x07\n"+
		"  reason   web-1 exited 3: \"no\\x1b[2J\"\n"+
		"  next     `berth rollout resume` or `berth rollout undo`\n"+
		`
SERVICE   UPDATED   READY   AVAILABLE   OLD   PHASE      REASON
db        1/1       1/1     1/1         0     ready
web       1/3       3/3     0/3         2     starting   web-2 waits for the rollout to be resumed
`)
}

func TestRollout_StatesAndTheirFacts(t *testing.T) {
	utc(t)
	for _, c := range []struct {
		rollout api.Rollout
		want    string
	}{
		{api.Rollout{Stack: "shop", Revision: 1, State: api.RolloutComplete, StartedAt: begin, EndedAt: begin.Add(1900 * time.Millisecond)}, `shop: revision 1  complete
  began    2026-01-02 03:04:05 (2 days ago)
  ended    2026-01-02 03:04:06 (2 days ago), after 1.9 s
`},
		{api.Rollout{Stack: "shop", Revision: 8, From: 7, State: api.RolloutCanary, StartedAt: begin, Canary: &api.Canary{Service: "web", Percent: 10}}, `shop: revision 7 → 8  canary
  began    2026-01-02 03:04:05 (2 days ago)
  canary   web, 10% of its new connections
` + "  next     `berth canary promote` or `berth canary abort`\n"},
		{api.Rollout{Stack: "shop", Revision: 7, From: 7, Failed: 8, State: api.RolloutRollbackPaused}, `shop: revision 8 → 7  rollback paused
  began    not known when
` + "  next     `berth rollout resume` tries again; `berth explain SERVICE` says what is in the way\n"},
		{api.Rollout{Stack: "shop", Revision: 1, State: api.RolloutPaused}, `shop: revision 1  paused
  began    not known when
` + "  next     `berth rollout resume`, or a mended file and `berth up`\n"},
	} {
		var b strings.Builder
		if err := WriteRollout(Screen{Writer: &b}, c.rollout, begin.Add(49*time.Hour)); err != nil {
			t.Fatal(err)
		}
		compare(t, b.String(), c.want)
	}
}

func TestHistory_MarksTheCurrentAndTheStable(t *testing.T) {
	var b strings.Builder
	image := func(ref, digest string, here bool) api.RevisionImage {
		return api.RevisionImage{Reference: ref, Digest: digest, Here: here}
	}
	err := WriteHistory(&b, []api.Revision{
		{Number: 8, State: api.RolloutRolledBack, Reason: "web-1 exited 3", CreatedAt: begin, Actor: "alice", Changes: []string{"web"}, Images: map[string]api.RevisionImage{
			"web": image("nginx:1.28", "sha256:9f3c77e0123", true), "db": image("postgres:17", "sha256:1", true),
		}},
		{Number: 7, State: api.RolloutComplete, Current: true, Stable: true, CreatedAt: begin.Add(-time.Hour), Actor: "b\x1bob", Changes: []string{"db", "web", "web2"}, Images: map[string]api.RevisionImage{
			"web": image("nginx:1.27", "sha256:12ab34c0123", true), "web2": image("nginx:1.27", "sha256:12ab34c0123", true), "db": image("postgres:17", "", false),
		}},
		{Number: 6, State: "superseded", CreatedAt: begin.Add(-2 * time.Hour), Images: map[string]api.RevisionImage{"web": image("nginx:1.26", "", true)}},
	}, begin.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	compare(t, b.String(), `REVISION   STATE             CREATED             BY        CHANGED         IMAGES                                        REASON
8          rolled back       About an hour ago   alice     web             nginx:1.28 (9f3c77e)                          web-1 exited 3
7          current, stable   2 hours ago         b\x1bob   db, web, web2   postgres:17, not here; nginx:1.27 (12ab34c)
6          superseded        3 hours ago                   web             nginx:1.26
`)
}

func TestExplain_TasksFirst_ThenWhatIsInTheWay_AllEscaped(t *testing.T) {
	var b strings.Builder
	err := WriteExplanation(Screen{Writer: &b}, api.Explanation{
		Service: "api", Summary: "1 of 2 tasks ready",
		Tasks: []api.Cause{
			{Subject: "api-1", Well: true, Text: "ready for 3 h"},
			{
				Subject: "api-2", Text: "not ready: readiness GET :8080/healthz answers 503 since 14:02:11 (9 times)",
				Log: []string{"cannot reach db:5432\x1b]0;pwned\x07"},
			},
			{Subject: "api-3", Text: "exited 1", Log: []string{"one", "two\x1b[2J"}, Position: &spec.Position{File: "compose.yaml", Line: 3, Col: 5}},
		},
		Causes: []api.Cause{
			{Subject: "db", Text: "0 of 1 ready: out of memory", Details: []string{"limit 64 MiB\x9b"}, Hint: "raise it"},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	compare(t, b.String(), `api: 1 of 2 tasks ready
  api-1  ready for 3 h
  api-2  not ready: readiness GET :8080/healthz answers 503 since 14:02:11 (9 times)
         last log line: "cannot reach db:5432\x1b]0;pwned\x07"
  api-3  exited 1  compose.yaml:3:5
         last log lines:
           one
           two\x1b[2J
  db     0 of 1 ready: out of memory
         limit 64 MiB\x9b
         hint: raise it
`)
}

func TestMoved_SaysWhatWasPlannedAndWhatWouldBeDoneNow(t *testing.T) {
	planned := api.Plan{Stack: "shop", Revision: 7, Next: 8, Changed: true, Services: []api.PlanService{
		{Service: "db", Verb: api.PlanUnchanged},
		{Service: "web", Verb: api.PlanReplace, Tasks: 3, Order: "start-first", Changes: []api.PlanChange{{Path: "image", Old: "a", New: "b"}, {Path: "environment.PASSWORD", Old: "hunter1", New: "hunter2"}}},
	}, Networks: []api.PlanResource{{Name: "shop_new", Verb: api.PlanCreate}}}
	now := api.Plan{Stack: "shop", Revision: 8, Next: 9, Changed: true, Services: []api.PlanService{
		{Service: "db", Verb: api.PlanUnchanged},
		{Service: "web", Verb: api.PlanUnchanged},
		{Service: "extra", Verb: api.PlanRemove, Reason: "no longer in the file"},
	}, Images: []string{"b"}}
	var b strings.Builder
	if err := WriteMoved(&b, planned, now); err != nil {
		t.Fatal(err)
	}
	compare(t, b.String(), `  shop              planned  revision 7 → 8
                    now      revision 8 → 9
  web               planned  3 tasks, start-first; image a → b; env PASSWORD changed
                    now      unchanged
  network shop_new  planned  create
                    now      nothing
  extra             planned  nothing
                    now      no longer in the file
  image b           planned  nothing
                    now      to be pulled
`)
	b.Reset()
	if err := WriteMoved(&b, planned, planned); err != nil || b.Len() > 0 {
		t.Errorf("alike, and yet: %q, %v", b.String(), err)
	}
}
