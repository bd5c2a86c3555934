package rollout

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"berth/testbed"
)

// Options are what the sections need to know.
type Options struct {
	Bin     string // folder of berth and berthd
	Dir     string // an empty one
	Archive string // of the image berth-testbed/echo
	// Fixture makes the archive of another image.
	Fixture func(ctx context.Context, ref string) (string, error)
	Out     io.Writer
	Deploys int    // of section rollout
	Kills   int    // of section kill
	Cases   string // of section bad: only those whose name has it in it
	// Rotations of section secrets, of each kind.
	Rotations int
	Keep      bool // keep logs
}

// missed is the error of a section that ran, but did not show what it must.
func missed(list []string) error {
	if len(list) == 0 {
		return nil
	}
	return errors.New("missed:\n  " + strings.Join(list, "\n  "))
}

// on runs a section on a machine with a neighbour. Nothing may be left then.
func on(ctx context.Context, o Options, name string, section func(*machine, *neighbour) error) (err error) {
	left, err := testbed.Leaks()
	if err != nil {
		return err
	}
	dir := filepath.Join(o.Dir, name)
	m, err := newMachine(ctx, o.Bin, dir, o.Archive)
	if err != nil {
		return err
	}
	n, err := newNeighbour()
	if err != nil {
		return errors.Join(err, m.close())
	}
	err = errors.Join(section(m, n), n.close(), m.close())
	if o.Keep {
		text, _ := os.ReadFile(filepath.Join(dir, "agent.log")) // it may not have come so far
		fmt.Fprintf(o.Out, "agent's log of section %s:\n%s\n", name, text)
	}
	list, e := left()
	list = slices.DeleteFunc(list, func(thing string) bool { // cgroups are the whole machine's
		return strings.HasPrefix(thing, "+ cgroup") && !strings.Contains(thing, m.cgroups)
	})
	if len(list) > 0 {
		e = errors.Join(e, fmt.Errorf("left behind:\n  %s", strings.Join(list, "\n  ")))
	}
	fmt.Fprintf(o.Out, "left behind: %d of mounts, links, rules, cgroups, processes\n", len(list))
	return errors.Join(err, e, os.RemoveAll(dir))
}
