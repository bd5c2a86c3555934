package spec

import (
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	cron "github.com/netresearch/go-cron"
)

// Job is one of the top-level jobs: a container that runs to its end when a
// schedule fires or somebody asks for it.
type Job struct {
	Name string `json:"name"`
	// Service is what a run does, as a service.
	Service Service `json:"service"`
	// NotByHand: triggers.manual is false.
	NotByHand bool       `json:"not_by_hand,omitempty"`
	Schedule  []Schedule `json:"schedule,omitempty"`
}

// Schedule is one of triggers.schedule.
type Schedule struct {
	Cron     string `json:"cron"`
	Timezone string `json:"timezone,omitempty"` // IANA; "": the agent's
	// Queue lets a run that falls due during another one follow it; else it is
	// left out (concurrency: forbid, the default).
	Queue bool `json:"queue,omitempty"`
	// SkipMissed leaves out what fell due while no agent ran; else one run makes
	// up for all of it (missed_fires: one, the default).
	SkipMissed bool `json:"skip_missed,omitempty"`
}

var cronParser = cron.MustNewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.Descriptor)

// Next is when the schedule fires first after a time; zero: never. A time that
// a change to summer time leaves out fires an hour later by the clock; one that
// a change back gives twice fires once.
func (s Schedule) Next(after time.Time) (time.Time, error) {
	zone := time.Local
	if s.Timezone != "" {
		var err error
		if zone, err = time.LoadLocation(s.Timezone); err != nil {
			return time.Time{}, fmt.Errorf("time zone %q is unknown", s.Timezone)
		}
	}
	if strings.Contains(s.Cron, "TZ=") {
		return time.Time{}, fmt.Errorf("cron %q names a time zone itself", s.Cron)
	}
	parsed, err := cronParser.Parse(s.Cron)
	if err != nil {
		return time.Time{}, fmt.Errorf("cron %q: %w", s.Cron, err)
	}
	next := parsed.Next(after.In(zone))
	for !s.hourly() && !next.IsZero() && again(next) {
		next = parsed.Next(next)
	}
	return next, nil
}

// hourly says that the schedule comes back every hour or more often, so that it
// fires in each of two hours that have the same name.
func (s Schedule) hourly() bool {
	if f := strings.Fields(s.Cron); len(f) == 5 {
		return strings.HasPrefix(f[1], "*")
	}
	return strings.HasPrefix(s.Cron, "@every") || s.Cron == "@hourly"
}

// again says that the clock showed the same time an hour before t.
func again(t time.Time) bool { return t.Add(-time.Hour).Format("15:04") == t.Format("15:04") }

// jobService is a job as a service, so that it is resolved like one.
func jobService(name string, j types.JobConfig) types.ServiceConfig {
	return types.ServiceConfig{Name: name, Profiles: j.Profiles, ContainerSpec: j.ContainerSpec, WorkloadSpec: j.WorkloadSpec}
}

// withJobs lets p have its jobs among its services, so that what they need is
// kept and read; withoutJobs takes them out again.
func withJobs(p *types.Project) {
	services := maps.Clone(p.Services)
	for name, j := range p.Jobs {
		services[name] = jobService(name, j)
	}
	p.Services = services
}

func (l *loading) withoutJobs(p *types.Project) {
	l.jobs = map[string]types.ServiceConfig{}
	for name := range p.Jobs {
		l.jobs[name] = p.Services[name]
		delete(p.Services, name)
	}
}

// convertJobs adds the jobs to st.
func (l *loading) convertJobs(st *Stack) {
	for name, s := range l.jobs {
		j := l.project.Jobs[name]
		out := Job{Name: name, Service: l.service(name, s)}
		out.Service.Replicas, out.Service.Profiles = 1, nil
		if t := j.Triggers; t != nil {
			out.NotByHand = t.Manual != nil && !*t.Manual
			for _, s := range t.Schedule {
				out.Schedule = append(out.Schedule, Schedule{
					Cron: s.Cron, Timezone: s.Timezone, Queue: s.Concurrency == "queue", SkipMissed: s.MissedFires == "skip",
				})
			}
		}
		if st.Jobs == nil {
			st.Jobs = map[string]Job{}
		}
		st.Jobs[name] = out
	}
}

// checkJob checks what only a job has.
func (l *loading) checkJob(name string, j types.JobConfig) {
	at := "jobs." + name
	if j.Image == "" && j.Build == nil {
		l.add(l.placed(Error, at, "job "+name+" has no image", "add image: NAME"))
	}
	if j.Triggers == nil {
		return
	}
	for i, s := range j.Triggers.Schedule {
		path := fmt.Sprintf("%s.triggers.schedule.%d", at, i)
		for _, attr := range []string{".cron", ".timezone"} {
			if l.wrote(path + attr) {
				path += attr
				break
			}
		}
		next, err := Schedule{Cron: s.Cron, Timezone: s.Timezone}.Next(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
		switch {
		case err != nil && strings.HasPrefix(err.Error(), "time zone"):
			l.add(l.placedValue(Error, fmt.Sprintf("%s.triggers.schedule.%d.timezone", at, i), err.Error(), "write a name such as Europe/Berlin"))
		case err != nil:
			l.add(l.placedValue(Error, path, err.Error(), "write minute, hour, day, month and weekday, such as 30 2 * * *, or @daily"))
		case next.IsZero():
			l.add(l.placedValue(Error, path, fmt.Sprintf("cron %q never comes", s.Cron), "write a day that there is"))
		}
	}
}
