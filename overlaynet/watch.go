package overlaynet

import (
	"encoding/binary"
	"fmt"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// settle is how long a burst of events may last before it is looked at: one
// nft transaction, a firewall reload, a link that goes with its ports.
const settle = 10 * time.Millisecond

// watchBuffer holds the messages of some thousand services' rules; the kernel's
// usual one not those of 500.
const watchBuffer = 16 << 20

// watcher hears of nftables transactions, and of ip rules, bridges and host
// ends of tasks deleted by others.
type watcher struct {
	prefix  string
	changed chan struct{}
	// look is called after a burst; it says whether to report it.
	look func(seen) bool

	nft, route *nl.NetlinkSocket
	events     chan struct{}
	done       chan struct{}
	running    sync.WaitGroup
	touched    bool // the transaction whose messages come in is of our table

	mu       sync.Mutex
	ours     map[uint32]chan<- uint32 // by the process that makes the transaction
	expected map[string]bool          // links that we delete
	seen     seen
}

// seen is what a burst of events tells.
type seen struct {
	foreign uint32 // generation of somebody else's last transaction in our table; 0: none
	lost    bool   // messages of nftables were lost
	link    bool   // a link of ours vanished
}

func watch(prefix string, look func(seen) bool) (*watcher, error) {
	w := &watcher{
		prefix:   prefix,
		changed:  make(chan struct{}, 1),
		look:     look,
		events:   make(chan struct{}, 1),
		done:     make(chan struct{}),
		ours:     map[uint32]chan<- uint32{},
		expected: map[string]bool{},
	}
	var err error
	if w.nft, err = nl.Subscribe(unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES); err != nil {
		return nil, fmt.Errorf("subscribe to nftables: %w", err)
	}
	if err := syscall.SetsockoptInt(w.nft.GetFd(), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, watchBuffer); err != nil {
		w.nft.Close()
		return nil, fmt.Errorf("subscribe to nftables: make room for messages: %w", err)
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

// start starts nft. The channel delivers the generation of its transaction when
// the kernel has made it.
func (w *watcher) start(cmd *exec.Cmd) (<-chan uint32, error) {
	made := make(chan uint32, 1)
	w.mu.Lock() // its message must not be read before its process is known
	defer w.mu.Unlock()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	w.ours[uint32(cmd.Process.Pid)] = made
	return made, nil
}

// forget says that a process has ended without a transaction.
func (w *watcher) forget(pid int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.ours, uint32(pid))
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

func (w *watcher) listen(s *nl.NetlinkSocket, event func(syscall.NetlinkMessage) bool) {
	for {
		msgs, _, err := s.Receive()
		select {
		case <-w.done:
			return
		default:
		}
		if err != nil {
			// Events were lost (ENOBUFS): look at the state itself.
			w.mu.Lock()
			w.seen.lost = w.seen.lost || s == w.nft
			w.mu.Unlock()
			w.poke()
			continue
		}
		for _, msg := range msgs {
			if event(msg) {
				w.poke()
			}
		}
	}
}

// nftEvent reads the messages of a transaction. The last one names the process
// that made it: by its socket, and by its id outside of all containers.
func (w *watcher) nftEvent(msg syscall.NetlinkMessage) bool {
	if msg.Header.Type != unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN {
		w.touched = w.touched || isOurs(msg.Data, w.prefix)
		return false
	}
	touched := w.touched
	w.touched = false
	if len(msg.Data) < nfgenmsgLen {
		return false
	}
	number := func(kind int) uint32 {
		if b := attr(msg.Data[nfgenmsgLen:], kind); len(b) == 4 {
			return binary.BigEndian.Uint32(b)
		}
		return 0
	}
	gen := number(unix.NFTA_GEN_ID)
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range []uint32{msg.Header.Pid, number(unix.NFTA_GEN_PROC_PID)} {
		if made, ok := w.ours[id]; ok {
			delete(w.ours, id)
			made <- gen
			return false
		}
	}
	if touched {
		w.seen.foreign = gen
	}
	return touched
}

func (w *watcher) routeEvent(msg syscall.NetlinkMessage) bool {
	switch msg.Header.Type {
	case unix.RTM_DELRULE:
		return true
	case unix.RTM_DELLINK:
	default:
		return false
	}
	if len(msg.Data) < unix.SizeofIfInfomsg {
		return false
	}
	name := nl.BytesToString(attr(msg.Data[unix.SizeofIfInfomsg:], unix.IFLA_IFNAME))
	if !isBridge(w.prefix, name) && !isVeth(w.prefix, name) || msg.Data[0] != unix.AF_UNSPEC {
		return false // AF_BRIDGE: a port left, and its link may live on
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.expected[name] {
		delete(w.expected, name)
		return false
	}
	w.seen.link = true
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
		now := w.seen
		w.seen = seen{}
		w.mu.Unlock()
		if !w.look(now) && !now.link {
			continue
		}
		select {
		case w.changed <- struct{}{}:
		default:
		}
	}
}
