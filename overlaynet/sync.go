package overlaynet

import (
	"context"
	"fmt"
	"sync"
)

// ruleState is what is wanted and what is in force.
type ruleState struct {
	mu      sync.Mutex
	wanted  wantedRules
	applied wantedRules // seq 0: nothing is known to be in force
	print   fingerprint // of the kernel after the last apply
	dirty   bool        // somebody else changed the kernel since

	// turn holds a token while one caller applies.
	turn chan struct{}
}

// wantedRules is one caller's state. A later call has a higher number.
type wantedRules struct {
	seq   uint64
	text  string
	guard []guardRule
	udp   udpTargets
}

// Sync makes the kernel's rules equal to r and returns when they, or those of
// a later call, are in force. Unchanged rules cost a comparison. Callers may
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
	w := wantedRules{text: render(m.prefix, r, c), guard: guardRules(m.prefix, r.Networks), udp: newUDPTargets(r)}

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
	}
	if !all && w.text == before.text {
		return nil
	}
	if err := m.applyTable(ctx, w.text); err != nil {
		return err
	}
	return m.forgetUDP(w.udp, before.udp, all)
}

// rulesTouched is called by the watcher after a burst of events that were not
// ours. It says whether the kernel still differs from what Sync left there,
// and if so makes the next Sync apply.
func (m *Manager) rulesTouched() bool {
	s := &m.rules
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	s.mu.Lock()
	nothing := s.applied.seq == 0
	guard, print := s.applied.guard, s.print
	s.mu.Unlock()
	if nothing {
		return false
	}
	same, err := m.inForce(guard, print)
	if err == nil && same {
		return false
	}
	s.mu.Lock()
	s.dirty = true
	s.mu.Unlock()
	return true
}

// inForce compares the kernel with what the last apply left.
func (m *Manager) inForce(guard []guardRule, print fingerprint) (bool, error) {
	now, err := m.tablePrint()
	if err != nil || now != print {
		return false, err
	}
	return m.guardInForce(guard)
}
