package reconciler

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"berth/spec"
)

var update = flag.Bool("update", false, "rewrite the golden plans")

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) time.Time { return noon.Add(-d) }

// web is a service of n replicas at key k2; its tasks of k1 are old.
func web(n int, more ...func(*Service)) Service {
	s := Service{
		Name: "web", Key: "k2", InPlace: "i1", Replicas: n, Update: Update{Parallelism: 1},
		Drain: 30 * time.Second, Grace: 10 * time.Second, Networks: []string{"shop_default"},
	}
	for _, f := range more {
		f(&s)
	}
	return s
}

func named(name string) func(*Service) { return func(s *Service) { s.Name = name } }
func stopFirst(s *Service)             { s.Order = StopFirst }
func oneShot(s *Service)               { s.OneShot = true }
func stoppedByUser(s *Service)         { s.Stopped = true }
func policy(c string, most int) func(*Service) {
	return func(s *Service) { s.Restart = spec.RestartPolicy{Condition: c, MaxAttempts: most} }
}

func needs(service, condition string, optional ...bool) func(*Service) {
	return func(s *Service) {
		s.DependsOn = append(s.DependsOn, spec.Dependency{
			Service: service, Condition: condition, Required: len(optional) == 0,
		})
	}
}

func stack(services ...Service) Stack {
	out := Stack{Name: "shop", Revision: 2, Services: map[string]Service{}, Networks: []string{"shop_default"}}
	for _, s := range services {
		out.Services[s.Name] = s
	}
	return out
}

// running is a ready, published task of key k.
func running(service string, slot, attempt int, key string, more ...func(*Task)) Task {
	t := Task{
		ID: service + string(rune('a'+attempt-1)) + string(rune('0'+slot)), Service: service, Slot: slot,
		Attempt: attempt, Key: key, InPlace: "i1", State: TaskRunning, Ready: true, Published: true,
		StartedAt: ago(time.Hour), Flows: -1,
	}
	for _, f := range more {
		f(&t)
	}
	return t
}

func unready(t *Task) {
	t.Ready, t.Published, t.Checked, t.Reason = false, false, true, "probe exits 1"
}
func unpublished(t *Task) { t.Published = false }
func failing(t *Task)     { t.Ready, t.Checked, t.Reason = false, true, "probe exits 1" }
func pending(t *Task)     { t.State, t.Ready, t.Published = TaskPending, false, false }
func withdrawn(since time.Duration, flows int) func(*Task) {
	return func(t *Task) { t.Published, t.WithdrawnAt, t.Flows = false, ago(since), flows }
}

func stopping(since time.Duration) func(*Task) {
	return func(t *Task) {
		t.Published, t.WithdrawnAt, t.Flows, t.StopAt = false, ago(since), 0, ago(since)
	}
}

func exited(code int, since, ran time.Duration, failures int) func(*Task) {
	return func(t *Task) {
		t.State, t.Ready, t.Published, t.ExitCode = TaskExited, false, false, code
		t.FinishedAt, t.StartedAt, t.Failures = ago(since), ago(since+ran), failures
	}
}

func restartedAgo(ds ...time.Duration) func(*Task) {
	return func(t *Task) {
		for _, d := range ds {
			t.Restarted = append(t.Restarted, ago(d))
		}
	}
}

func unfit(fits int) func(*Service) {
	return func(s *Service) { s.Unfit, s.Fits = "node.labels.disk is not ssd", fits }
}
func lost(t *Task) { t.Lost, t.ExitCode, t.Reason = true, -1, "the machine was restarted" }

// goldenCase is one input of the planner.
type goldenCase struct {
	name  string
	want  Stack
	tasks []Task
}

// cases are goldens: what is wanted, what is there, and in
// testdata/plans/NAME.txt what shall be done.
var cases = []goldenCase{
	{"an empty machine gets everything at once", stack(web(3), web(1, named("db"))), nil},
	{"what is there and ready is left alone", stack(web(2)), []Task{running("web", 1, 1, "k2"), running("web", 2, 1, "k2")}},
	{"a started task is published once it is ready", stack(web(2)), []Task{running("web", 1, 1, "k2", unpublished), running("web", 2, 1, "k2", unready)}},
	{"a task that turns unready leaves the map", stack(web(2)), []Task{running("web", 1, 1, "k2", failing), running("web", 2, 1, "k2")}},
	{"start-first creates the new task beside the old", stack(web(2)), []Task{running("web", 1, 1, "k1"), running("web", 2, 1, "k1")}},
	{"start-first waits for the new task before the old is touched", stack(web(1)), []Task{running("web", 1, 1, "k1"), running("web", 1, 2, "k2", unready)}},
	{"start-first withdraws the old when the new is published", stack(web(1)), []Task{running("web", 1, 1, "k1"), running("web", 1, 2, "k2")}},
	{"the old task drains while it has connections", stack(web(1)), []Task{running("web", 1, 1, "k1", withdrawn(5*time.Second, 4)), running("web", 1, 2, "k2")}},
	{"the drain ends with the last connection", stack(web(1)), []Task{running("web", 1, 1, "k1", withdrawn(5*time.Second, 0)), running("web", 1, 2, "k2")}},
	{"the drain ends at its limit", stack(web(1)), []Task{running("web", 1, 1, "k1", withdrawn(31*time.Second, 4)), running("web", 1, 2, "k2")}},
	{"a stopped task has its grace", stack(web(1)), []Task{running("web", 1, 1, "k1", stopping(4*time.Second)), running("web", 1, 2, "k2")}},
	{"grace ends in a kill", stack(web(1)), []Task{running("web", 1, 1, "k1", stopping(10*time.Second)), running("web", 1, 2, "k2")}},
	{"a kill is waited for", stack(web(1)), []Task{running("web", 1, 1, "k1", stopping(14*time.Second), func(t *Task) { t.KilledAt = ago(4 * time.Second) }), running("web", 1, 2, "k2")}},
	{"a kill that did not help is repeated", stack(web(1)), []Task{running("web", 1, 1, "k1", stopping(15*time.Second), func(t *Task) { t.KilledAt = ago(5 * time.Second) }), running("web", 1, 2, "k2")}},
	{"a task that may be published is withdrawn before it is stopped", stack(web(1)), []Task{running("web", 1, 1, "k1", unpublished, func(t *Task) { t.Exposed = true }), running("web", 1, 2, "k2")}},
	{"an ended old task is removed", stack(web(1)), []Task{running("web", 1, 1, "k1", exited(0, time.Second, time.Hour, 0)), running("web", 1, 2, "k2")}},
	{"one slot at a time: the next waits for the first", stack(web(3)), []Task{running("web", 1, 1, "k1"), running("web", 1, 2, "k2", unready), running("web", 2, 1, "k1"), running("web", 3, 1, "k1")}},
	{"the next slot begins when the first is published", stack(web(2)), []Task{running("web", 1, 1, "k1", withdrawn(time.Second, 3)), running("web", 1, 2, "k2"), running("web", 2, 1, "k1")}},
	{"stop-first withdraws the old task first", stack(web(1, stopFirst)), []Task{running("web", 1, 1, "k1")}},
	{"stop-first creates nothing while the old task stops", stack(web(1, stopFirst)), []Task{running("web", 1, 1, "k1", stopping(time.Second))}},
	{"stop-first creates the new task when the old has ended", stack(web(1, stopFirst)), []Task{running("web", 1, 1, "k1", exited(0, time.Second, time.Hour, 0))}},
	{"stop-first with an unmet dependency keeps the old task", stack(web(1, stopFirst, needs("db", spec.DependsHealthy)), web(1, named("db"))), []Task{running("web", 1, 1, "k1"), running("db", 1, 1, "k2", unready)}},
	{"a failed task is followed after the back-off", stack(web(1)), []Task{running("web", 1, 3, "k2", exited(1, 100*time.Millisecond, time.Second, 2))}},
	{"a failed task is followed at once when the back-off is over", stack(web(1)), []Task{running("web", 1, 3, "k2", exited(1, 500*time.Millisecond, time.Second, 2))}},
	{"ten seconds up forget the failures", stack(web(1)), []Task{running("web", 1, 3, "k2", exited(1, 150*time.Millisecond, 11*time.Second, 9))}},
	{"the back-off stops growing at a minute", stack(web(1)), []Task{running("web", 1, 30, "k2", exited(1, time.Second, time.Second, 29))}},
	{"exit 0 with a silent policy is the end", stack(web(1)), []Task{running("web", 1, 1, "k2", exited(0, time.Second, time.Second, 0))}},
	{"exit 0 with restart always is not", stack(web(1, policy(spec.RestartAlways, 0))), []Task{running("web", 1, 1, "k2", exited(0, time.Second, time.Second, 0))}},
	{"restart no leaves a failed task alone", stack(web(1, policy(spec.RestartNo, 0))), []Task{running("web", 1, 1, "k2", exited(3, time.Second, time.Second, 0))}},
	{"on-failure stops after its attempts", stack(web(1, policy(spec.RestartOnFailure, 2))), []Task{running("web", 1, 3, "k2", exited(3, time.Minute, time.Second, 2), restartedAgo(time.Hour, 2*time.Minute))}},
	{"attempts before the window do not count", stack(web(1, func(s *Service) {
		s.Restart = spec.RestartPolicy{Condition: spec.RestartAlways, MaxAttempts: 2, Delay: 5 * time.Second, Window: 10 * time.Minute}
	})), []Task{running("web", 1, 3, "k2", exited(3, time.Minute, time.Second, 2), restartedAgo(time.Hour, 2*time.Minute))}},
	{"attempts within the window end it", stack(web(1, func(s *Service) {
		s.Restart = spec.RestartPolicy{Condition: spec.RestartAlways, MaxAttempts: 2, Window: 2 * time.Hour}
	})), []Task{running("web", 1, 3, "k2", exited(0, time.Minute, 50*time.Minute, 0), restartedAgo(time.Hour, 51*time.Minute))}},
	{"a service that fits no node is pending", stack(web(2, unfit(0)), web(1, named("api"), needs("web", spec.DependsStarted))), nil},
	{"replicas beyond what fits the node are pending", stack(web(3, unfit(2))), []Task{running("web", 1, 1, "k2")}},
	{"what runs where it does not fit any more ends", stack(web(2, unfit(0))), []Task{running("web", 1, 1, "k2"), running("web", 2, 1, "k2", stopping(time.Second))}},
	{"what waits for one that never comes fails with its reason", stack(web(1, needs("second", spec.DependsCompleted)), web(1, named("second"), oneShot, needs("first", spec.DependsCompleted)), web(1, named("first"), oneShot)), []Task{running("first", 1, 1, "k2", exited(3, time.Second, time.Second, 0))}},
	{"a task whose hooks run is not started", stack(web(1, needs("db", spec.DependsStarted)), web(1, named("db"))), []Task{running("db", 1, 1, "k2", unready, func(t *Task) { t.Hooking = true })}},
	{"a job runs its further completions", stack(web(3, named("job"), oneShot, func(s *Service) { s.Completed = 2 })), nil},
	{"a lost task comes back whatever the policy", stack(web(1, policy(spec.RestartNo, 0))), []Task{running("web", 1, 1, "k2", exited(-1, time.Second, time.Hour, 0), lost)}},
	{"service_started waits for the start", stack(web(1, needs("db", spec.DependsStarted)), web(1, named("db"))), []Task{running("db", 1, 1, "k2", pending)}},
	{"service_started is met by a started task", stack(web(1, needs("db", spec.DependsStarted)), web(1, named("db"))), []Task{running("db", 1, 1, "k2", unready)}},
	{"service_healthy waits for the health test", stack(web(1, needs("db", spec.DependsHealthy)), web(1, named("db"))), []Task{running("db", 1, 1, "k2", unready)}},
	{"service_healthy fails with a task that ended for good", stack(web(1, needs("db", spec.DependsHealthy)), web(1, named("db"), policy(spec.RestartNo, 0))), []Task{running("db", 1, 1, "k2", exited(1, time.Second, time.Second, 0))}},
	{"service_completed waits for the end", stack(web(1, needs("job", spec.DependsCompleted)), web(1, named("job"), oneShot)), []Task{running("job", 1, 1, "k2")}},
	{"service_completed is met by exit 0", stack(web(1, needs("job", spec.DependsCompleted)), web(1, named("job"), oneShot)), []Task{running("job", 1, 1, "k2", exited(0, time.Second, time.Second, 0))}},
	{"a failed one-shot keeps the old version serving", stack(web(1, needs("job", spec.DependsCompleted)), web(1, named("job"), oneShot)), []Task{running("web", 1, 1, "k1"), running("job", 1, 2, "k2", exited(1, time.Second, time.Second, 0))}},
	{"a failed optional dependency is none", stack(web(1, needs("job", spec.DependsCompleted, true)), web(1, named("job"), oneShot)), []Task{running("job", 1, 1, "k2", exited(1, time.Second, time.Second, 0))}},
	{"a completed one-shot does not run again", stack(web(1, oneShot)), []Task{running("web", 1, 1, "k2", exited(0, time.Hour, time.Second, 0))}},
	{"scaling down withdraws the highest slots", stack(web(1)), []Task{running("web", 1, 1, "k2"), running("web", 2, 1, "k2"), running("web", 3, 1, "k2", stopping(time.Second))}},
	{"a service that is gone ends", stack(web(1)), []Task{running("web", 1, 1, "k2"), running("cron", 1, 1, "k2")}},
	{"a stopped service ends without a successor", stack(web(1, stoppedByUser)), []Task{running("web", 1, 1, "k2")}},
	{"stopped services end dependents first", stack(web(1, stoppedByUser, needs("db", spec.DependsStarted)), web(1, named("db"), stoppedByUser)), []Task{running("web", 1, 1, "k2"), running("db", 1, 1, "k2")}},
	{"stop-first ends an old live task before it follows an exited one", stack(web(1, stopFirst)), []Task{running("web", 1, 1, "k1"), running("web", 1, 2, "k2", exited(1, time.Minute, time.Second, 0))}},
	{"a started service comes back at once", stack(web(1)), []Task{running("web", 1, 1, "k2", exited(143, time.Second, time.Hour, 0), func(t *Task) { t.StopAt = ago(2 * time.Second) })}},
	{"going back keeps the old task that still runs", stack(web(1)), []Task{running("web", 1, 1, "k2"), running("web", 1, 2, "k3", unready)}},
	{"a program that can't be run is not tried again", stack(web(1, policy(spec.RestartAlways, 0))), []Task{running("web", 1, 1, "k2", exited(127, time.Second, 0, 0), func(t *Task) { t.Unstartable, t.Reason = true, "start \"nosuch\": not found" })}},
	{"after a failure a task must stay up to be ready", stack(web(1)), []Task{running("web", 1, 3, "k2", unpublished, func(t *Task) { t.Failures, t.StartedAt = 2, ago(time.Second) })}},
	{"after a failure a task that stayed up is published", stack(web(1)), []Task{running("web", 1, 3, "k2", unpublished, func(t *Task) { t.Failures, t.StartedAt = 2, ago(3*time.Second) })}},
	{"what failed for good is tried again when the user asks", stack(web(1, policy(spec.RestartNo, 0))), []Task{running("web", 1, 1, "k2", exited(3, time.Minute, time.Second, 0), func(t *Task) { t.Retry = true })}},
	{"changed limits touch no process", stack(web(1)), []Task{running("web", 1, 1, "k2", func(t *Task) { t.InPlace = "i0" })}},
	{"a sidecar follows the task whose network it shares", stack(web(1), web(1, named("side"), func(s *Service) { s.Shares = []string{"service:web"}; s.Networks = nil })), []Task{running("web", 1, 2, "k2"), running("side", 1, 1, "k2", func(t *Task) { t.Parents = map[string]string{"service:web": "weba1"} })}},
	{"a sidecar of two services waits for the one that does not run", stack(web(1), web(1, named("db"), stoppedByUser), web(1, named("side"), func(s *Service) { s.Shares = []string{"service:db", "service:web"} })), []Task{running("web", 1, 1, "k2")}},
	{"a sidecar of another stack's container follows it", stack(web(1, named("side"), func(s *Service) {
		s.Shares, s.Containers = []string{"container:x"}, map[string]string{"container:x": "new"}
	})), []Task{running("side", 1, 1, "k2", func(t *Task) { t.Parents = map[string]string{"container:x": "old"} })}},
	{"a sidecar stays while the container is gone", stack(web(1, named("side"), func(s *Service) { s.Shares = []string{"container:x"} })), []Task{running("side", 1, 1, "k2", func(t *Task) { t.Parents = map[string]string{"container:x": "old"} })}},
	{"a sidecar stays with the old task until the new one is ready", stack(web(1), web(1, named("side"), func(s *Service) { s.Shares = []string{"service:web"}; s.Networks = nil })), []Task{running("web", 1, 1, "k1"), running("web", 1, 2, "k2", unready), running("side", 1, 1, "k2", func(t *Task) { t.Parents = map[string]string{"service:web": "weba1"} })}},
	{"down ends dependents first", func() Stack {
		s := stack(web(1, needs("db", spec.DependsHealthy)), web(1, named("db")))
		s.Removing = true
		return s
	}(), []Task{running("web", 1, 1, "k2"), running("db", 1, 1, "k2")}},
	{"down removes networks and the stack last", func() Stack {
		s := stack(web(1))
		s.Removing = true
		return s
	}(), nil},
}

func TestPlanStack_GoldenPlans(t *testing.T) { golden(t, cases) }

func golden(t *testing.T, cases []goldenCase) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			seen := Observed{Tasks: c.tasks, Networks: map[string]bool{}}
			if len(c.tasks) > 0 || c.want.Removing {
				seen.Networks["shop_default"] = true
			}
			plan := PlanStack(c.want, seen, noon)
			var b strings.Builder
			b.WriteString(plan.String())
			for _, s := range plan.Services {
				b.WriteString("status " + s.Service + ": " + s.Phase.String())
				if s.Reason != "" {
					b.WriteString(": " + s.Reason)
				}
				b.WriteByte('\n')
			}
			path := filepath.Join("testdata", "plans", strings.ReplaceAll(c.name, " ", "-")+".txt")
			if *update {
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			golden, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(golden), b.String()); diff != "" {
				t.Errorf("the plan changed (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPlanStack_SameInput_SamePlan(t *testing.T) {
	for _, c := range slices.Concat(cases, rollouts) {
		seen := Observed{Tasks: c.tasks, Networks: map[string]bool{}}
		first := PlanStack(c.want, seen, noon).String()
		for range 20 {
			if again := PlanStack(c.want, seen, noon).String(); again != first {
				t.Fatalf("%s: two plans of one input differ:\n%s\n%s", c.name, first, again)
			}
		}
	}
}

func TestOrderOf_FollowsTheRules(t *testing.T) {
	order := func(o string) *spec.UpdateConfig { return &spec.UpdateConfig{Order: o} }
	for _, c := range []struct {
		name     string
		service  spec.Service
		writable []string
		want     Order
		reason   string
	}{
		{"silent", spec.Service{Replicas: 1}, nil, StartFirst, ""},
		{"volume at one replica", spec.Service{Replicas: 1}, []string{"volume pgdata"}, StopFirst, "volume pgdata has one writer"},
		{"volume at two", spec.Service{Replicas: 2}, []string{"volume pgdata"}, StartFirst, ""},
		{"the file wins", spec.Service{Replicas: 1, Update: order("start-first")}, []string{"volume pgdata"}, StartFirst, ""},
		{"the file wins the other way", spec.Service{Replicas: 3, Update: order("stop-first")}, nil, StopFirst, "update_config.order"},
		{"host network", spec.Service{Replicas: 1, NetworkMode: "host"}, nil, StopFirst, "network_mode host: old and new would share ports"},
		{"static address", spec.Service{Replicas: 1, Networks: []spec.Attachment{{IPv4: "10.0.0.9"}}}, nil, StopFirst, "static address 10.0.0.9"},
		{"container_name is no reason", spec.Service{Replicas: 1, ContainerName: "db"}, nil, StartFirst, ""},
	} {
		if got, why := OrderOf(&c.service, c.writable); got != c.want || why != c.reason {
			t.Errorf("%s: got %v (%q), want %v (%q)", c.name, got, why, c.want, c.reason)
		}
	}
}
