package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	cliServices = 50
	// maxCLITime and maxCLIMemory are what a command may take that only looks
	// at a file.
	maxCLITime   = 40 * time.Millisecond
	maxCLIMemory = 40 << 20
)

// cliCost measures the commands that ask no agent, on a file of 50 services.
func cliCost(ctx context.Context, o options, dir string) error {
	var text strings.Builder
	text.WriteString("services:\n")
	for i := range cliServices {
		fmt.Fprintf(&text, `  s%d:
    image: "nginx:${TAG:-1.%d}"
    environment: {A: "1", B: two, C: "${HOME}", D: x, E: y, F: z}
    ports: ["%d:80"]
    volumes: ["data:/data", "./conf:/conf:ro"]
    networks: [front]
    healthcheck: {test: [CMD, "true"], interval: 5s}
    restart: always
    deploy: {resources: {limits: {cpus: "0.5", memory: 64m}}}
    labels: {a: b, c: d}
`, i, i, 8000+i)
	}
	text.WriteString("volumes: {data: }\nnetworks: {front: }\n")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make a folder to stand in: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "compose.yaml"), []byte(text.String()), 0o644); err != nil {
		return fmt.Errorf("write the file to look at: %w", err)
	}
	berth, err := filepath.Abs(filepath.Join(o.bin, "berth"))
	if err != nil {
		return fmt.Errorf("find berth: %w", err)
	}
	fmt.Printf("%-24s %10s %10s %10s\n", "command", "median", "CPU", "peak")
	var missed []string
	for _, c := range []struct {
		name string
		args []string
	}{
		{"version", []string{"version", "--short"}},
		{"completion", []string{"completion", "bash"}},
		{"config -q", []string{"config", "-q"}},
		{"config", []string{"config"}},
		{"lint", []string{"lint"}},
		{"complete services", []string{"__complete", "up", ""}},
	} {
		var took, cpu []time.Duration
		var peak int64
		for round := range 4*o.rounds + 1 {
			cmd := exec.CommandContext(ctx, berth, c.args...)
			cmd.Dir = dir
			start := time.Now()
			if err := cmd.Run(); err != nil {
				return fmt.Errorf("berth %s: %w", c.name, err)
			}
			if round == 0 {
				continue // fills the page cache
			}
			took = append(took, time.Since(start))
			use, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
			if !ok {
				return errors.New("the system does not tell what a process used")
			}
			cpu = append(cpu, cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime())
			peak = max(peak, use.Maxrss<<10)
		}
		slices.Sort(took)
		slices.Sort(cpu)
		middle := took[len(took)/2]
		fmt.Printf("%-24s %7.1f ms %7.1f ms %7.1f MB\n", c.name, ms(middle), ms(cpu[len(cpu)/2]), float64(peak)/(1<<20))
		if middle > maxCLITime || peak > maxCLIMemory {
			missed = append(missed, c.name)
		}
	}
	if len(missed) > 0 {
		return fmt.Errorf("above %v or %d MB: %s", maxCLITime, maxCLIMemory>>20, strings.Join(missed, ", "))
	}
	return nil
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
