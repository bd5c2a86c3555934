package dataplane

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Options of Run.
type Options struct {
	// SnapshotPath is the file that the agent writes. Beside it lie
	// dataplane.lock and dataplane.pid.
	SnapshotPath string
	// DNSPort is 53 by default.
	DNSPort uint16
	// Idle is how long Run goes on with nothing to serve; 5 s by default.
	Idle time.Duration
	// Ready, if set, is called once: every socket of the first snapshot that
	// can be opened is open, and an older dataplane has been told to end.
	Ready func()
	Log   *slog.Logger // slog.Default by default
}

const (
	// retry is how often sockets that failed are tried again. It is also the
	// longest that a change stays unseen if inotify fails.
	retry = time.Second
	// handover is how long an ending dataplane waits for what is under way.
	handover = 5 * time.Second

	defaultDNSPort = 53
	defaultIdle    = 5 * time.Second
)

// Run serves until ctx is done, a newer dataplane takes over, or there has
// been nothing to serve for a while; all three are success. A snapshot that is
// missing or cannot be read changes nothing.
//
// Taking over: a new dataplane opens the same sockets (SO_REUSEPORT), writes
// its process id to dataplane.pid and waits for dataplane.lock, serving
// meanwhile. The older one sees a foreign id, stops accepting, ends what is
// under way within 5 s, closes and lets go of the lock. Who holds the lock
// serves: with nobody holding it, no dataplane runs.
func Run(ctx context.Context, o Options) error {
	if o.DNSPort == 0 {
		o.DNSPort = defaultDNSPort
	}
	if o.Idle == 0 {
		o.Idle = defaultIdle
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	dir := filepath.Dir(o.SnapshotPath)
	events, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("run the dataplane: watch files: %w", err)
	}
	defer events.Close()
	// The folder, not the files: both are replaced by rename.
	if err := events.Add(dir); err != nil {
		return fmt.Errorf("run the dataplane: watch %s: %w", dir, err)
	}
	conns, cancel := context.WithCancel(context.Background())
	p := &plane{
		Options: o, events: events,
		server: newServer(conns, o.DNSPort, o.Log),
		claim:  newClaim(dir),
	}
	err = p.run(ctx)
	p.server.closeAll()
	cancel()
	p.server.running.Wait()
	if err != nil {
		return fmt.Errorf("run the dataplane: %w", err)
	}
	return nil
}

// plane is the loop of Run.
type plane struct {
	Options
	events *fsnotify.Watcher
	server *server
	claim  *claim

	stamp os.FileInfo // of the snapshot in force
	empty time.Time   // since when there is nothing to serve; zero: there is
}

func (p *plane) run(ctx context.Context) error {
	p.empty = time.Now()
	p.reload(ctx)
	if err := p.claim.announce(); err != nil {
		return err
	}
	defer p.claim.release()
	if p.Ready != nil {
		p.Ready()
	}
	tick := time.NewTicker(retry)
	defer tick.Stop()
	for {
		if err := p.claim.try(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-p.events.Events:
		case err := <-p.events.Errors:
			p.Log.Warn("watch files", "err", err)
		case <-p.claim.waiting():
		case <-tick.C:
		}
		if p.claim.superseded() {
			p.Log.Info("a newer dataplane serves")
			return nil
		}
		p.reload(ctx)
		if !p.empty.IsZero() && time.Since(p.empty) >= p.Idle && p.mayEnd(ctx) {
			return nil
		}
	}
}

// reload applies the snapshot if the file is another, else opens what could
// not be opened.
func (p *plane) reload(ctx context.Context) {
	info, err := os.Stat(p.SnapshotPath)
	if err == nil && p.stamp != nil && os.SameFile(info, p.stamp) && info.ModTime().Equal(p.stamp.ModTime()) {
		p.server.reconcile(ctx)
		return
	}
	var snap Snapshot
	if err == nil {
		snap, err = Read(p.SnapshotPath)
	}
	if err != nil {
		if !errors.Is(err, os.ErrNotExist) {
			p.Log.Error("the snapshot is not usable, the last one stays in force", "err", err)
		}
		p.server.reconcile(ctx)
		return
	}
	p.stamp = info
	p.server.apply(ctx, snap)
	switch nothing := len(snap.Networks) == 0 && len(snap.Loopback) == 0; {
	case !nothing:
		p.empty = time.Time{}
	case p.empty.IsZero():
		p.empty = time.Now()
	}
}

// mayEnd lets go of the lock and looks once more: the agent may have written a
// snapshot and found the lock held just before.
func (p *plane) mayEnd(ctx context.Context) bool {
	p.claim.release()
	p.reload(ctx)
	return !p.empty.IsZero()
}
