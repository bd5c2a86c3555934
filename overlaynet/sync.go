package overlaynet

import (
	"context"
	"fmt"
	"sync"
	"time"

	"berth/crash"
)

// ruleState is what is wanted and what is in force.
type ruleState struct {
	mu      sync.Mutex
	wanted  wantedRules
	applied wantedRules // seq 0: nothing is known to be in force
	dirty   bool        // somebody else changed the kernel since
	// Generations of our last transaction and of the last that loaded the whole
	// table; 0: not known.
	last, loaded uint32
	left         map[string]time.Time // see table.linger; for who has the turn

	// turn holds a token while one caller applies.
	turn chan struct{}
}

// wantedRules is one caller's state. A later call has a higher number.
type wantedRules struct {
	seq   uint64
	table table
	guard []guardRule
	udp   udpTargets
}

// Sync makes the kernel's rules equal to r and returns when they, or those of
// a later call, are in force. Only what differs from the rules in force is
// changed; the whole table is loaded when it is not known what is in force.
// Unchanged rules cost a comparison. Callers may
// be concurrent: the last wanted state wins, and calls that wait for their
// turn are served by one transaction. On an error the old rules are in force
// and the next Sync tries again.
//
// Established TCP connections to backends that left go on. UDP flows to them
// are forgotten, so that the client's next packet finds a ready one.
func (m *Manager) Sync(ctx context.Context, r Rules) error {
	if err := Check(r); err != nil {
		return fmt.Errorf("sync rules: %w", err)
	}
	c, err := m.closed()
	if err != nil {
		return fmt.Errorf("sync rules: %w", err)
	}
	// Nothing of r is kept: the caller may go on changing it.
	w := wantedRules{table: newTable(m.prefix, r, c), guard: guardRules(m.prefix, r.Networks), udp: newUDPTargets(r)}

	s := &m.rules
	s.mu.Lock()
	s.wanted.seq++
	w.seq = s.wanted.seq
	s.wanted = w
	s.mu.Unlock()

	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	s.mu.Lock()
	last, before, dirty := s.wanted, s.applied, s.dirty
	s.mu.Unlock()
	if before.seq >= w.seq && !dirty {
		return nil
	}
	if err := m.apply(ctx, last, before, dirty); err != nil {
		return fmt.Errorf("sync rules: %w", err)
	}
	return nil
}

func (m *Manager) closed() (closed, error) {
	v4, err := m.closedLinks("4")
	if err != nil {
		return closed{}, err
	}
	v6, err := m.closedLinks("6")
	return closed{v4, v6}, err
}

// apply runs with the turn held. The guard goes first where networks are
// added, so that no address is open before its rules are there.
func (m *Manager) apply(ctx context.Context, w, before wantedRules, dirty bool) error {
	s := &m.rules
	s.mu.Lock()
	s.dirty = false
	s.mu.Unlock()
	err := m.applyChanged(ctx, w, before, dirty || before.seq == 0)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.dirty = true
		return err
	}
	s.applied = w
	return nil
}

func (m *Manager) applyChanged(ctx context.Context, w, before wantedRules, all bool) error {
	if all || !equalGuards(w.guard, before.guard) {
		if err := m.applyGuard(w.guard); err != nil {
			return err
		}
		crash.At("guard.applied")
	}
	if err := m.applyTable(ctx, w.table, before.table, all); err != nil {
		return err
	}
	crash.At("rules.applied")
	return m.forgetUDP(ctx, w.udp, before.udp, all)
}

func (m *Manager) applyTable(ctx context.Context, t, before table, all bool) error {
	s := &m.rules
	t.linger(before, s.left, time.Now())
	if !all {
		text := t.changes(m.prefix, before)
		if text == "" {
			return nil
		}
		gen, err := m.nft(ctx, text)
		if err == nil {
			s.mu.Lock()
			s.last = gen
			s.mu.Unlock()
			return nil
		}
		if ctx.Err() != nil {
			return err
		}
		// The kernel has something else than what we left there.
	}
	gen, err := m.load(ctx, t)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.last, s.loaded = gen, gen
	s.mu.Unlock()
	return nil
}

// rulesTouched is called by the watcher after a burst of events. It says
// whether the kernel differs from what Sync left there, and if so makes the
// next Sync load the whole table.
func (m *Manager) rulesTouched(now seen) bool {
	s := &m.rules
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	s.mu.Lock()
	nothing := s.applied.seq == 0
	guard, last, loaded := s.applied.guard, s.last, s.loaded
	s.mu.Unlock()
	if nothing {
		return false
	}
	touched := now.foreign != 0 && int32(now.foreign-loaded) > 0
	if !touched && now.lost {
		gen, err := m.generation()
		touched = err != nil || gen != last
	}
	if !touched {
		same, err := m.guardInForce(guard)
		touched = err != nil || !same
	}
	if touched {
		s.mu.Lock()
		s.dirty = true
		s.mu.Unlock()
	}
	return touched
}
