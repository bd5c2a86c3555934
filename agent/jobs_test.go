package agent

import (
	"slices"
	"testing"
	"time"

	"berth/api"
	"berth/spec"
)

// withJob is a stack with one job.
func withJob(j spec.Job) spec.Stack {
	st := stackOf("shop", service("db", "db:1"))
	j.Name, j.Service = "backup", service("backup", "job:1")
	st.Jobs = map[string]spec.Job{"backup": j}
	return st
}

func (b *bench) runs() (out []string) {
	b.t.Helper()
	jobs, err := b.jobList("shop")
	if err != nil || len(jobs) != 1 {
		b.t.Fatalf("%+v, %v", jobs, err)
	}
	for _, r := range jobs[0].Runs {
		out = append(out, r.State)
	}
	return out
}

// ended ends the run that lives.
func (b *bench) endRun(code int) {
	b.t.Helper()
	for _, t := range b.w.view().tasks {
		if isRun(t, "shop", "backup") && t.Live() {
			b.containers.end(t.ID, code, false)
			b.pass(time.Second)
			return
		}
	}
	b.t.Error("no run lives")
}

func TestJobs_AScheduleFires_AndItsRunsAreRemembered(t *testing.T) {
	simulate(t, func(b *bench) {
		b.up(withJob(spec.Job{Schedule: []spec.Schedule{{Cron: "0 * * * *", Timezone: "UTC"}}}))
		if got := b.runs(); got != nil {
			t.Errorf("ran at once: %v", got)
		}
		b.pass(time.Hour)
		b.endRun(0)
		b.pass(time.Hour)
		b.endRun(3)
		if got := b.runs(); !slices.Equal(got, []string{api.RunFailed, api.RunSucceeded}) {
			t.Errorf("runs %v", got)
		}
		for range keptRuns + 3 {
			b.pass(time.Hour)
			b.endRun(0)
		}
		jobs, _ := b.jobList("shop")
		if n := len(jobs[0].Runs); n != keptRuns || jobs[0].Runs[0].Number != keptRuns+5 {
			t.Errorf("%d runs are remembered, the newest is %d", n, jobs[0].Runs[0].Number)
		}
	})
}

func TestJobs_ARunThatLasts_KeepsTheNextOut_OrQueuesIt(t *testing.T) {
	for queue, want := range map[bool]int{false: 1, true: 3} {
		simulate(t, func(b *bench) {
			b.up(withJob(spec.Job{Schedule: []spec.Schedule{{Cron: "0 * * * *", Timezone: "UTC", Queue: queue}}}))
			b.pass(3*time.Hour + time.Minute) // three fires
			if got := b.runs(); len(got) != 1 {
				t.Errorf("queue %v: runs %v at the same time", queue, got)
			}
			for range want {
				b.endRun(0)
			}
			if got := b.runs(); len(got) != want {
				t.Errorf("queue %v: %d runs, want %d", queue, len(got), want)
			}
		})
	}
}

func TestJobs_WhatFellDueWithoutAnAgent_IsMadeUpForOnce_OrLeftOut(t *testing.T) {
	for skip, want := range map[bool]int{false: 1, true: 0} {
		simulate(t, func(b *bench) {
			b.up(withJob(spec.Job{Schedule: []spec.Schedule{{Cron: "0 * * * *", Timezone: "UTC", SkipMissed: skip}}}))
			b.crash(func() { <-time.After(5 * time.Hour) })
			b.pass(time.Minute)
			if got := b.runs(); len(got) != want {
				t.Errorf("skip %v: runs %v, want %d", skip, got, want)
			}
			if want == 1 {
				b.endRun(0)
			}
			b.crash(nil)
			b.pass(time.Hour)
			if got := b.runs(); len(got) != want+1 {
				t.Errorf("skip %v: runs %v after the next fire", skip, got)
			}
		})
	}
}

func TestJobs_AFireWhoseImageIsNotThere_IsTold_AndTheNextIsTried(t *testing.T) {
	simulate(t, func(b *bench) {
		st := withJob(spec.Job{Schedule: []spec.Schedule{{Cron: "0 * * * *", Timezone: "UTC"}}})
		job := st.Jobs["backup"]
		job.Service.Image = "nosuch:1"
		st.Jobs["backup"] = job
		b.up(st)
		b.pass(time.Hour)
		jobs, _ := b.jobList("shop")
		if jobs[0].Trouble == "" || len(jobs[0].Runs) != 0 {
			t.Errorf("%+v", jobs[0])
		}
		b.img.image("nosuch:1", "nosuch:1", b.img.remote["job:1"].Config)
		b.pass(time.Hour)
		b.endRun(0)
		if jobs, _ = b.jobList("shop"); jobs[0].Trouble != "" || len(jobs[0].Runs) != 1 {
			t.Errorf("%+v", jobs[0])
		}
	})
}

func TestJobs_OnesThatAreNotInTheFileAnyMore_DoNotRun_AndDownForgetsAll(t *testing.T) {
	simulate(t, func(b *bench) {
		st := withJob(spec.Job{Schedule: []spec.Schedule{{Cron: "0 * * * *", Timezone: "UTC"}}})
		b.up(st)
		b.pass(time.Hour)
		b.endRun(0)
		st.Jobs = nil
		b.up(st)
		b.pass(3 * time.Hour)
		n := 0
		for _, t := range b.w.view().tasks {
			if t.OneOff != nil {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%d runs", n)
		}
		if _, err := b.down(b.t.Context(), "shop", &api.DownRequest{}, func(api.Progress) {}); err != nil {
			t.Fatal(err)
		}
		if left := len(b.w.view().tasks); left != 0 {
			t.Errorf("%d tasks are left", left)
		}
	})
}
