package overlaynet

import (
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// settle is how long a burst of events may last before it is looked at: one
// nft transaction, a firewall reload, a link that goes with its ports.
const settle = 10 * time.Millisecond

// watcher hears of nftables transactions, and of ip rules, bridges and host
// ends of tasks deleted by others.
type watcher struct {
	prefix  string
	changed chan struct{}
	// look is called after a burst; it says whether to report it.
	look func() bool

	nft, route *nl.NetlinkSocket
	events     chan struct{}
	done       chan struct{}
	running    sync.WaitGroup

	mu       sync.Mutex
	ours     map[uint32]bool // processes whose transactions are ours
	expected map[string]bool // links that we delete
	lost     bool            // a link vanished: report without looking
}

func watch(prefix string, look func() bool) (*watcher, error) {
	w := &watcher{
		prefix:   prefix,
		changed:  make(chan struct{}, 1),
		look:     look,
		events:   make(chan struct{}, 1),
		done:     make(chan struct{}),
		ours:     map[uint32]bool{},
		expected: map[string]bool{},
	}
	var err error
	if w.nft, err = nl.Subscribe(unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES); err != nil {
		return nil, fmt.Errorf("subscribe to nftables: %w", err)
	}
	w.route, err = nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE)
	if err != nil {
		w.nft.Close()
		return nil, fmt.Errorf("subscribe to links and ip rules: %w", err)
	}
	w.running.Go(func() { w.listen(w.nft, w.nftEvent) })
	w.running.Go(func() { w.listen(w.route, w.routeEvent) })
	w.running.Go(w.report)
	return w, nil
}

func (w *watcher) close() {
	close(w.done)
	w.nft.Close()
	w.route.Close()
	w.running.Wait()
}

// ignore says that pid's transaction is ours.
func (w *watcher) ignore(pid int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.ours) > 64 {
		clear(w.ours) // a stray look is harmless
	}
	w.ours[uint32(pid)] = true
}

// expect says that the deletion of this link is ours.
func (w *watcher) expect(link string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.expected[link] = true
}

// poke asks for a look.
func (w *watcher) poke() {
	select {
	case w.events <- struct{}{}:
	default:
	}
}

func (w *watcher) listen(s *nl.NetlinkSocket, event func(msgType uint16, data []byte) bool) {
	for {
		msgs, _, err := s.Receive()
		select {
		case <-w.done:
			return
		default:
		}
		if err != nil {
			// Events were lost (ENOBUFS): look at the state itself.
			w.poke()
			continue
		}
		for _, msg := range msgs {
			if event(msg.Header.Type, msg.Data) {
				w.poke()
			}
		}
	}
}

// nftEvent reads the message that ends each transaction: it names the process
// that made it. Whatever the transaction was, look compares.
func (w *watcher) nftEvent(msgType uint16, data []byte) bool {
	if msgType != unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN || len(data) < nfgenmsgLen {
		return false
	}
	pid := attr(data[nfgenmsgLen:], unix.NFTA_GEN_PROC_PID)
	if len(pid) != 4 {
		return true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	id := binary.BigEndian.Uint32(pid)
	ours := w.ours[id]
	delete(w.ours, id)
	return !ours
}

func (w *watcher) routeEvent(msgType uint16, data []byte) bool {
	switch msgType {
	case unix.RTM_DELRULE:
		return true
	case unix.RTM_DELLINK:
	default:
		return false
	}
	if len(data) < unix.SizeofIfInfomsg {
		return false
	}
	name := nl.BytesToString(attr(data[unix.SizeofIfInfomsg:], unix.IFLA_IFNAME))
	if !isBridge(w.prefix, name) && !isVeth(w.prefix, name) || data[0] != unix.AF_UNSPEC {
		return false // AF_BRIDGE: a port left, and its link may live on
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.expected[name] {
		delete(w.expected, name)
		return false
	}
	w.lost = true
	return true
}

// report lets a burst settle, looks, and tells.
func (w *watcher) report() {
	for {
		select {
		case <-w.done:
			return
		case <-w.events:
		}
		select {
		case <-w.done:
			return
		case <-time.After(settle):
		}
		select {
		case <-w.events:
		default:
		}
		w.mu.Lock()
		lost := w.lost
		w.lost = false
		w.mu.Unlock()
		if !w.look() && !lost {
			continue
		}
		select {
		case w.changed <- struct{}{}:
		default:
		}
	}
}
