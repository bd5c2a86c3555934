package overlaynet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/vishvananda/netlink"

	"berth/crash"
)

// Sweep removes namespaces, links and bridges of our prefix that belong to
// none of the ids. Idempotent. It goes on after a failure and reports all.
func (m *Manager) Sweep(ctx context.Context, networkIDs, taskIDs map[string]bool) error {
	pinned, err := os.ReadDir(m.netnsDir())
	if err != nil {
		return fmt.Errorf("sweep: %w", err)
	}
	var failed []error
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, e := range pinned {
		if taskIDs[e.Name()] {
			continue
		}
		all.Go(func() { // together: see unplugger
			err := m.Detach(ctx, e.Name())
			mu.Lock()
			defer mu.Unlock()
			failed = append(failed, err)
		})
	}
	all.Wait()
	bridges, veths := map[string]bool{}, map[string]bool{}
	for id := range networkIDs {
		bridges[bridgeName(m.prefix, id)] = true
	}
	for id := range taskIDs {
		veths[vethBase(m.prefix, id)] = true
	}
	links, err := complete(m.nl.LinkList)
	if err != nil {
		return fmt.Errorf("sweep: list links: %w", errors.Join(append(failed, err)...))
	}
	var strays []netlink.Link
	for _, l := range links {
		name := l.Attrs().Name
		switch {
		case isVeth(m.prefix, name) && !veths[name[:len(name)-1]]:
		case isBridge(m.prefix, name) && l.Type() == "bridge" && !bridges[name]:
		default:
			continue
		}
		strays = append(strays, l)
	}
	failed = append(failed, m.unplug(strays))
	if err := errors.Join(failed...); err != nil {
		return fmt.Errorf("sweep: %w", err)
	}
	return nil
}

// Teardown removes the nftables table and the ip rule guard, and forgets what
// was wanted. Idempotent. Networks and namespaces stay, and so does
// forwarding: others may rely on it by now.
func (m *Manager) Teardown(ctx context.Context) error {
	select {
	case m.rules.turn <- struct{}{}:
		defer func() { <-m.rules.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	m.rules.mu.Lock()
	m.rules.applied, m.rules.dirty = wantedRules{}, false
	m.rules.mu.Unlock()
	there, err := m.names()
	if err == nil && there != nil {
		_, err = m.nft(ctx, m.deletion())
	}
	if err != nil {
		return fmt.Errorf("teardown: %w", err)
	}
	crash.At("rules.deleted")
	if err := m.applyGuard(nil); err != nil {
		return fmt.Errorf("teardown: %w", err)
	}
	return nil
}
