package main

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"

	"berth/testbed"
)

const floorBridge = "benchbr0"

// floor makes containers with nothing between the program and the machine:
// for each a network namespace, a veth pair with an address, an overlay mount,
// a bundle, conmon, and the runtime's create and start.
type floor struct {
	dir             string // below it: lower, and a folder for each container
	runtime, conmon string
	cgroups         string
	n, parallel     int
}

func newFloor(dir string, img v1.Image, o options) (*floor, error) {
	f := &floor{dir: dir, cgroups: fmt.Sprintf("/berth-bench-%d", os.Getpid()), n: o.n, parallel: o.parallel}
	var err error
	if f.runtime, err = exec.LookPath("crun"); err != nil {
		if f.runtime, err = exec.LookPath("runc"); err != nil {
			return nil, errors.New("find crun or runc: neither is in PATH; `make deps` installs them")
		}
	}
	if f.conmon, err = exec.LookPath("conmon"); err != nil {
		return nil, errors.New("find conmon: it is not in PATH; `make deps` installs it")
	}
	for _, d := range []string{"lower", "exits", "state"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, fmt.Errorf("make a folder: %w", err)
		}
	}
	return f, extract(img, filepath.Join(dir, "lower"))
}

func (f *floor) name() string { return "floor" }

func (f *floor) runtimeVersion() string {
	out, err := exec.Command(f.runtime, "--version").Output()
	if err != nil {
		return filepath.Base(f.runtime)
	}
	first, _, _ := strings.Cut(string(out), "\n")
	return first
}

func (f *floor) up(ctx context.Context) error {
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: floorBridge}}
	if err := netlink.LinkAdd(bridge); err != nil {
		return fmt.Errorf("make the bridge: %w", err)
	}
	if err := netlink.LinkSetUp(bridge); err != nil {
		return fmt.Errorf("set the bridge up: %w", err)
	}
	return f.each(func(b bundle) error {
		if err := b.attach(bridge); err != nil {
			return err
		}
		if err := b.mount(filepath.Join(f.dir, "lower")); err != nil {
			return err
		}
		return f.start(ctx, b)
	})
}

// again is nothing: the floor remembers nothing that it could compare.
func (f *floor) again(context.Context) error { return nil }

func (f *floor) down(ctx context.Context) error {
	err := f.each(func(b bundle) error {
		if err := f.stop(ctx, b); err != nil {
			return err
		}
		return b.remove()
	})
	if err != nil {
		return err
	}
	if err := netlink.LinkDel(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: floorBridge}}); err != nil {
		return fmt.Errorf("remove the bridge: %w", err)
	}
	return testbed.RemoveCgroup(f.cgroups)
}

func (f *floor) each(do func(bundle) error) error {
	var g errgroup.Group
	g.SetLimit(f.parallel)
	for i := range f.n {
		g.Go(func() error {
			id := fmt.Sprintf("floor%d", i)
			b := bundle{id: id, dir: filepath.Join(f.dir, id), addr: net.IPv4(10, 99, byte(i/250), byte(i%250+2)), link: i}
			if err := do(b); err != nil {
				return fmt.Errorf("%s: %w", id, err)
			}
			return nil
		})
	}
	return g.Wait()
}

func extract(img v1.Image, dir string) error {
	rc := mutate.Extract(img)
	defer rc.Close()
	r := tar.NewReader(rc)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("unpack the image: %w", err)
		}
		if h.Typeflag != tar.TypeReg {
			return fmt.Errorf("unpack the image: %s is no plain file; the bench's image has nothing else", h.Name)
		}
		f, err := os.OpenFile(filepath.Join(dir, filepath.Base(h.Name)), os.O_CREATE|os.O_WRONLY, 0o755)
		if err != nil {
			return fmt.Errorf("unpack the image: %w", err)
		}
		_, err = io.Copy(f, r)
		if err := errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("unpack the image: %w", err)
		}
	}
}
