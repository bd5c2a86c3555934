package cli

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"

	"berth/api"
)

// psRow is a task as `docker compose ps --format json` prints it. Field names
// and formats are Compose's; Ready, Revision, Restarts and
// ServiceLabels are ours.
type psRow struct {
	Command      string
	CreatedAt    string
	ExitCode     int
	Health       string
	ID           string
	Image        string
	Labels       string
	LocalVolumes string
	Mounts       string
	Name         string
	Names        string
	Networks     string
	Ports        string
	Project      string
	Publishers   []publisher
	Ready        bool
	Restarts     int
	Revision     uint64
	RunningFor   string
	Service      string
	// ServiceLabels are deploy.labels.
	ServiceLabels string
	Size          string
	State         string
	Status        string
}

// publisher is one published port in Compose's words.
type publisher struct {
	URL           string
	TargetPort    uint16
	PublishedPort uint16
	Protocol      string
}

// commandColumns is where the COMMAND column is cut, as Docker does.
const commandColumns = 20

// WritePS writes tasks as a table. With whole, commands and ids are not cut.
func WritePS(w io.Writer, tasks []api.Task, now time.Time, whole bool) error {
	t := Table{Head: []string{"NAME", "IMAGE", "COMMAND", "SERVICE", "CREATED", "STATUS", "PORTS"}}
	for _, task := range tasks {
		command := task.Command
		if !whole {
			command = cut(command, commandColumns)
		}
		t.Add(task.Name, task.Image, strconv.Quote(command), task.Service, ago(task.CreatedAt, now), Status(task, now), Ports(task.Ports))
	}
	return t.Write(w)
}

// WritePSJSON writes one JSON object per task and line.
func WritePSJSON(w io.Writer, tasks []api.Task, now time.Time) error {
	for _, task := range tasks {
		if err := WriteJSONLine(w, newPSRow(task, now)); err != nil {
			return err
		}
	}
	return nil
}

func newPSRow(t api.Task, now time.Time) psRow {
	r := psRow{
		Command:       strconv.Quote(t.Command),
		CreatedAt:     t.CreatedAt.Local().Format("2006-01-02 15:04:05 -0700 MST"),
		ExitCode:      t.ExitCode,
		Health:        t.Health,
		ID:            t.ID,
		Image:         t.Image,
		Labels:        joinMap(t.Labels),
		Name:          t.Name,
		Names:         t.Name,
		Ports:         Ports(t.Ports),
		Project:       t.Stack,
		Publishers:    []publisher{},
		Ready:         t.Ready,
		Restarts:      t.Restarts,
		Revision:      t.Revision,
		RunningFor:    ago(t.CreatedAt, now),
		Service:       t.Service,
		ServiceLabels: joinMap(t.ServiceLabels),
		Size:          "0B",
		State:         t.State,
		Status:        Status(t, now),
	}
	var mounts, networks []string
	volumes := 0
	for _, m := range t.Mounts {
		mounts = append(mounts, cmp.Or(m.Name, m.Source))
		if m.Name != "" {
			volumes++
		}
	}
	for _, n := range t.Networks {
		networks = append(networks, n.Network)
	}
	r.Mounts, r.Networks, r.LocalVolumes = strings.Join(mounts, ","), strings.Join(networks, ","), strconv.Itoa(volumes)
	for _, p := range t.Ports {
		r.Publishers = append(r.Publishers, publisher{URL: cmp.Or(p.HostIP, "0.0.0.0"), TargetPort: p.Target, PublishedPort: p.Published, Protocol: p.Protocol})
	}
	return r
}

// Status is a task's state in Docker's words: "Up 3 hours (healthy)".
func Status(t api.Task, now time.Time) string {
	switch t.State {
	case api.TaskRunning:
		up := "Up " + duration(now.Sub(t.StartedAt))
		switch {
		case !t.Current && t.Ready:
			return up + " (serving until replaced)" // its successor is not ready yet
		case !t.Current:
			return up + " (draining)"
		}
		if t.Health == "starting" {
			return up + " (health: starting)"
		} else if t.Health != "" {
			return up + " (" + t.Health + ")"
		}
		return up
	case api.TaskPaused:
		return "Up " + duration(now.Sub(t.StartedAt)) + " (Paused)"
	case api.TaskExited:
		status := fmt.Sprintf("Exited (%d) %s", t.ExitCode, ago(t.FinishedAt, now))
		if t.OOMKilled {
			status += " (out of memory)"
		}
		return status
	case api.TaskRestarting:
		return fmt.Sprintf("Restarting (%d) %s", t.ExitCode, ago(t.FinishedAt, now))
	case api.TaskRemoving:
		return "Removal In Progress"
	case api.TaskPending:
		return "Pending: " + t.Reason
	case api.TaskCreated:
		return "Created"
	}
	return t.State
}

// Ports gives published ports as Docker does, without a "[::]" twin for a
// port that is published on every address.
func Ports(ports []api.PortMapping) string {
	texts := make([]string, 0, len(ports))
	for _, p := range ports {
		if p.Published == 0 {
			texts = append(texts, fmt.Sprintf("%d/%s", p.Target, p.Protocol))
			continue
		}
		host := cmp.Or(p.HostIP, "0.0.0.0")
		if strings.Contains(host, ":") {
			host = "[" + strings.Trim(host, "[]") + "]"
		}
		texts = append(texts, fmt.Sprintf("%s:%d->%d/%s", host, p.Published, p.Target, p.Protocol))
	}
	return strings.Join(texts, ", ")
}

// duration is a time span as people say it: "3 hours".
func duration(d time.Duration) string { return units.HumanDuration(max(d, 0)) }

// ago is how long before now t was: "3 hours ago"; "" for no time.
func ago(t, now time.Time) string {
	if t.IsZero() {
		return ""
	}
	return duration(now.Sub(t)) + " ago"
}

// joinMap gives a map as "k=v,k=v", sorted by key.
func joinMap(m map[string]string) string {
	pairs := make([]string, 0, len(m))
	for k, v := range m {
		pairs = append(pairs, k+"="+v)
	}
	slices.Sort(pairs)
	return strings.Join(pairs, ",")
}
