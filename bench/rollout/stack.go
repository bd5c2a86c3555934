package rollout

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"berth/api"
)

// stack is one Compose file on a machine. Its services run testbed/cmd/echo.
type stack struct {
	*machine
	name, file string
}

// service is one of a stack. Lines are further lines of its YAML.
type service struct {
	name     string
	version  string
	bad      string // BAD of its environment
	linger   string // LINGER of its environment
	replicas int
	port     int // published for HTTP, and ten above for TCP and UDP; 0: none
	image    string
	lines    []string
}

// image is what all services run if they don't say.
const image = "berth-testbed/echo"

// healthcheck lets a task be ready as soon as it is, and costs little then.
const healthcheck = `healthcheck: {test: ["CMD", "/app", "-check"], interval: 5s, timeout: 3s, retries: 3, start_period: 10s, start_interval: 250ms}`

// tcpAbove is the distance between the ports of a service.
const tcpAbove = 10

func (s service) yaml() string {
	if s.image == "" {
		s.image = image
	}
	lines := []string{"image: " + s.image, "pull_policy: missing", fmt.Sprintf("environment: {VERSION: %q, BAD: %q, LINGER: %q}", s.version, s.bad, s.linger)}
	if s.port != 0 {
		lines = append(lines, fmt.Sprintf(`ports: ["%d:8080", "%d:7000", "%d:7000/udp"]`, s.port, s.port+tcpAbove, s.port+tcpAbove))
	}
	return "  " + s.name + ":\n    " + strings.Join(append(lines, s.lines...), "\n    ") + "\n"
}

// deploy is the line that says how many tasks there are and how they change.
func deploy(replicas int, update string) string {
	if update == "" {
		return fmt.Sprintf("deploy: {replicas: %d}", replicas)
	}
	return fmt.Sprintf("deploy: {replicas: %d, update_config: {%s}}", replicas, update)
}

func (m *machine) stack(name string) *stack {
	return &stack{m, name, filepath.Join(m.dir, name, "compose.yaml")}
}

// write writes the Compose file.
func (s *stack) write(services ...service) error {
	var text strings.Builder
	fmt.Fprintf(&text, "name: %s\nservices:\n", s.name)
	for _, v := range services {
		text.WriteString(v.yaml())
	}
	if err := os.MkdirAll(filepath.Dir(s.file), 0o755); err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	if err := os.WriteFile(s.file, []byte(text.String()), 0o644); err != nil {
		return fmt.Errorf("write the Compose file: %w", err)
	}
	return nil
}

func (s *stack) up(ctx context.Context) result { return s.berth(ctx, "-f", s.file, "up", "-d") }

func (s *stack) down() error {
	if r := s.berth(context.Background(), "-p", s.name, "down", "--volumes", "--timeout", "3"); r.code != 0 {
		return r
	}
	return nil
}

// running lists the tasks that take traffic.
func (s *stack) running(ctx context.Context) ([]api.Task, error) {
	status, err := s.client.Stack(ctx, s.name)
	if err != nil {
		return nil, fmt.Errorf("list the tasks of %s: %w", s.name, err)
	}
	var out []api.Task
	for _, t := range status.Tasks {
		if t.State != api.TaskRunning || !t.Ready {
			continue
		}
		more, err := s.client.InspectTask(ctx, t.ID) // the list has no pids
		if err != nil {
			return nil, fmt.Errorf("inspect %s: %w", t.Name, err)
		}
		out = append(out, more.Task)
	}
	return out, nil
}

// pids gives the process of each task that takes traffic, by its id.
func (s *stack) pids(ctx context.Context) (map[string]int, error) {
	tasks, err := s.running(ctx)
	if err != nil {
		return nil, err
	}
	out := map[string]int{}
	for _, t := range tasks {
		out[t.ID] = t.Pid
	}
	return out, nil
}

// only is the one running task of a service.
func (s *stack) only(ctx context.Context, service string) (api.Task, error) {
	tasks, err := s.running(ctx)
	if err != nil {
		return api.Task{}, err
	}
	for _, t := range tasks {
		if t.Service == service {
			return t, nil
		}
	}
	return api.Task{}, fmt.Errorf("%s of %s has no task", service, s.name)
}

// vip is a service's virtual address on the stack's network.
func (s *stack) vip(ctx context.Context, service string) (string, error) {
	networks, err := s.client.Networks(ctx, s.name)
	if err != nil {
		return "", fmt.Errorf("list the networks of %s: %w", s.name, err)
	}
	for _, n := range networks {
		for _, addr := range n.VIPs[s.name+"/"+service] {
			if !strings.Contains(addr, ":") {
				return addr, nil
			}
		}
	}
	return "", fmt.Errorf("%s of %s has no virtual address", service, s.name)
}
