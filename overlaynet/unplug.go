package overlaynet

import (
	"fmt"
	"hash/crc32"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// unplugger deletes links together. Deleting one keeps the kernel's link lock
// for some 25 ms, in which it waits for readers; deleting a group of links
// waits once. Callers that come while a deletion is under way form the next.
type unplugger struct {
	mu      sync.Mutex
	busy    bool
	waiting *unplugging
}

type unplugging struct {
	links []netlink.Link
	done  chan struct{}
	err   error
}

// unplug deletes the links and returns when they are gone. Idempotent.
func (m *Manager) unplug(links []netlink.Link) error {
	if len(links) == 0 {
		return nil
	}
	for _, l := range links {
		m.watcher.expect(l.Attrs().Name)
	}
	u := &m.unplugger
	u.mu.Lock()
	if u.waiting == nil {
		u.waiting = &unplugging{done: make(chan struct{})}
	}
	mine := u.waiting
	mine.links = append(mine.links, links...)
	lead := !u.busy
	u.busy = true
	u.mu.Unlock()
	for lead {
		u.mu.Lock()
		batch := u.waiting
		u.waiting = nil
		if batch == nil {
			u.busy, lead = false, false
		}
		u.mu.Unlock()
		if batch != nil {
			batch.err = m.deleteTogether(batch.links)
			close(batch.done)
		}
	}
	<-mine.done
	return mine.err
}

func (m *Manager) deleteTogether(links []netlink.Link) error {
	if len(links) == 1 {
		if err := m.nl.LinkDel(links[0]); err != nil && !gone(err) {
			return fmt.Errorf("delete %s: %w", links[0].Attrs().Name, err)
		}
		return nil
	}
	// A number that nobody else uses as a group: group 0 is every link.
	group := 0x62000000 | int(crc32.ChecksumIEEE([]byte(m.run))&0xffffff)
	some := false
	for _, l := range links {
		err := m.nl.LinkSetGroup(l, group)
		if err != nil && !gone(err) {
			return fmt.Errorf("delete %s: set its group: %w", l.Attrs().Name, err)
		}
		some = some || err == nil
	}
	if !some {
		return nil
	}
	req := nl.NewNetlinkRequest(unix.RTM_DELLINK, unix.NLM_F_ACK)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(uint32(group))))
	if _, err := req.Execute(unix.NETLINK_ROUTE, 0); err != nil && !gone(err) {
		return fmt.Errorf("delete %d links: %w", len(links), err)
	}
	return nil
}

// hostEnds are the host ends of a task that exist.
func (m *Manager) hostEnds(taskID string) ([]netlink.Link, error) {
	// Somebody may have deleted one of them by hand: a gap is not the end.
	const gap = 4
	var out []netlink.Link
	base := vethBase(m.prefix, taskID)
	for i, missing := 0, 0; i < maxEndpoints && missing < gap; i++ {
		link, err := m.nl.LinkByName(base + indexDigits[i:i+1])
		switch {
		case err == nil:
			out = append(out, link)
		case gone(err):
			missing++
		default:
			return nil, fmt.Errorf("find host end %s: %w", base+indexDigits[i:i+1], err)
		}
	}
	return out, nil
}
