package runtime

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Report is what Probe found, for `berth doctor`.
type Report struct {
	Runtimes []OCIReport   `json:"runtimes"`
	Conmon   ProgramReport `json:"conmon"`
	// Cgroups is v1, v2 or "v1, hybrid".
	Cgroups string `json:"cgroups"`
	// Chosen is the path that Open would use, "" if none works.
	Chosen string `json:"chosen"`
}

// ProgramReport is one program.
type ProgramReport struct {
	Name    string `json:"name"`
	Path    string `json:"path,omitempty"` // "": not installed
	Version string `json:"version,omitempty"`
	Error   string `json:"error,omitempty"`
	// Warnings are one line each: what is known to be wrong with it, and what
	// to do.
	Warnings []string `json:"warnings,omitempty"`
}

// OCIReport is an OCI runtime.
type OCIReport struct {
	ProgramReport
	// Works says that a container ran; Error says why not.
	Works bool `json:"works"`
}

// Probe looks at the machine and runs a container with each runtime. It
// changes nothing that stays and needs no Open.
func Probe(ctx context.Context, cfg Config) Report {
	rep := Report{Cgroups: findCgroups().mode()}
	cfg, err := cfg.normal()
	if err != nil {
		rep.Conmon.Error = err.Error()
		return rep
	}
	defer findCgroups().removeEmpty(cfg.CgroupParent)
	m := newSpecMaker(cfg, findCgroups())
	names := []string{"crun", "runc"}
	if cfg.Runtime != "" {
		names = []string{cfg.Runtime}
	}
	for _, name := range names {
		r := probeRuntime(ctx, cfg.Run, m, name)
		if r.Works && rep.Chosen == "" {
			rep.Chosen = r.Path
		}
		rep.Runtimes = append(rep.Runtimes, r)
	}
	rep.Conmon = probeConmon(ctx, cfg.Conmon)
	return rep
}

func probeRuntime(ctx context.Context, run string, m *specMaker, name string) OCIReport {
	found := candidates(name)
	if len(found) == 0 {
		return OCIReport{ProgramReport: ProgramReport{Name: name, Error: "not installed"}}
	}
	o := found[0]
	r := OCIReport{ProgramReport: ProgramReport{Name: o.name, Path: o.path}}
	r.Version, r.Error = versionOf(ctx, o.path)
	r.Warnings = append(floors(o.name, r.Version), writable(o.path)...)
	if err := tryContainer(ctx, run, m, o); err != nil {
		if r.Error = lastMessage(saidText(err)); r.Error == "" {
			r.Error = err.Error()
		}
		return r
	}
	r.Works = true
	return r
}

func probeConmon(ctx context.Context, configured string) ProgramReport {
	p := ProgramReport{Name: "conmon"}
	path, err := findConmon(configured)
	if err != nil {
		p.Error = err.Error()
		return p
	}
	p.Path = path
	p.Version, p.Error = versionOf(ctx, path)
	p.Warnings = append(floors("conmon", p.Version), writable(path)...)
	return p
}

var versionForm = regexp.MustCompile(`version:? v?(\d+\.\d+(?:\.\d+)?[^\s]*)`)

func versionOf(ctx context.Context, path string) (version, failure string) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "--version")
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	m := versionForm.FindSubmatch(out)
	if m != nil {
		return string(m[1]), ""
	}
	if err != nil {
		return "", fmt.Sprintf("%s --version: %v", path, err)
	}
	return "", path + " --version: no version in its answer"
}

// floor is the oldest version without a known flaw.
type floor struct {
	version, cves string
}

// knownFloors are in the order of their versions. Distributions repair older
// versions without changing the number, so these are warnings.
var knownFloors = map[string][]floor{
	"runc": {
		{"1.1.12", "CVE-2024-21626 (escape through a leaked descriptor)"},
		{"1.2.8", "CVE-2025-31133, CVE-2025-52565, CVE-2025-52881 (escape through masked paths, the console and /proc)"},
	},
	"crun": {
		{"1.27", "CVE-2026-30892 (exec as another user than asked for)"},
		{"1.28", "CVE-2026-47766 (an image's /dev symlink redirects device set-up)"},
	},
	"conmon": {
		{"2.1.8", "containers are orphaned when the agent dies while creating them; the agent cleans up"},
	},
}

// floors names what is known of a version. Berth itself refuses the images and
// requests that it can recognise (symlinked /dev, user names to exec, a working
// directory in /proc).
func floors(name, version string) []string {
	if version == "" {
		return nil
	}
	var out []string
	for _, f := range knownFloors[name] {
		if compareVersions(version, f.version) < 0 {
			out = append(out, fmt.Sprintf("%s %s is older than %s: %s; upgrade, or check that your distribution has the fix",
				name, version, f.version, f.cves))
		}
	}
	return out
}

// compareVersions compares the numbers of two versions; what follows them
// (+ds1, -rc2) counts for nothing.
func compareVersions(a, b string) int {
	x, y := versionNumbers(a), versionNumbers(b)
	for i := range x {
		if c := cmp.Compare(x[i], y[i]); c != 0 {
			return c
		}
	}
	return 0
}

func versionNumbers(s string) (out [3]int) {
	for i, f := range strings.SplitN(s, ".", 3) {
		end := strings.IndexFunc(f, func(r rune) bool { return r < '0' || r > '9' })
		if end >= 0 {
			f = f[:end]
		}
		out[i], _ = strconv.Atoi(f)
	}
	return out
}

// writable warns of a program that others than root may change
// (CVE-2019-5736 is about a container doing so).
func writable(path string) []string {
	fi, err := os.Stat(path)
	if err != nil || fi.Mode().Perm()&0o022 == 0 {
		return nil
	}
	return []string{fmt.Sprintf("%s is writable by others than its owner; run chmod go-w %s", path, path)}
}
