package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"berth/agent"
	"berth/redact"
)

// agentOptions are the flags that every command of berthd shares.
type agentOptions struct {
	root, run, config string
	verbose           bool
	redact            redact.Set // of all that this process says
}

func (o *agentOptions) flags(f *pflag.FlagSet) {
	f.StringVar(&o.root, "root", env("BERTH_ROOT", agent.DefaultRoot), "folder for what survives a reboot (BERTH_ROOT)")
	f.StringVar(&o.run, "run", env("BERTH_RUN", agent.DefaultRun), "folder for what does not (BERTH_RUN)")
	f.StringVar(&o.config, "config", os.Getenv("BERTH_CONFIG"), "configuration file (BERTH_CONFIG, default "+agent.DefaultConfig+")")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "log more")
}

// load reads the configuration: the file that was named must exist, the
// default one may be missing.
func (o *agentOptions) load() (agent.Config, error) {
	path, named := o.config, o.config != ""
	if !named {
		path = agent.DefaultConfig
	}
	c, err := agent.LoadConfig(path, named)
	if err != nil {
		return c, err
	}
	level := slog.LevelInfo
	if o.verbose {
		level = slog.LevelDebug
	}
	c.Root, c.Run, c.Version = abs(o.root), abs(o.run), version
	c.Redact = &o.redact
	c.Log = slog.New(slog.NewTextHandler(o.redact.Writer(os.Stderr), &slog.HandlerOptions{Level: level}))
	log.SetOutput(o.redact.Writer(os.Stderr)) // of libraries
	return c, nil
}

func runAgent(ctx context.Context, o *agentOptions) error {
	if os.Geteuid() != 0 {
		return errors.New("berthd needs root: it makes namespaces, mounts and firewall rules")
	}
	c, err := o.load()
	if err != nil {
		return err
	}
	if os.Getenv("HOME") == "" { // as under systemd: registry credentials lie there
		if err := os.Setenv("HOME", "/root"); err != nil {
			return fmt.Errorf("set HOME: %w", err)
		}
	}
	// What is delivered to containers passes through this process's memory.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		c.Log.Warn("core dumps stay possible", "err", err)
	}
	a, err := agent.New(ctx, c)
	if err != nil {
		return err
	}
	ready := func() {
		c.Log.Info("listening", "socket", agent.Socket(c.Run), "pid", os.Getpid(), "version", version)
		// Outside systemd there is nobody to tell, and no error.
		if _, err := daemon.SdNotify(true, daemon.SdNotifyReady); err != nil {
			c.Log.Warn("tell systemd that the agent is ready", "err", err)
		}
	}
	err = a.Run(ctx, ready)
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = nil // it was told to end before it had begun
	}
	if err := errors.Join(err, a.Close()); err != nil {
		return fmt.Errorf("the agent ended: %w", err)
	}
	return nil
}
