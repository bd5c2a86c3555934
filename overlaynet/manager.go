package overlaynet

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Manager makes networks on this machine, in the network namespace in which
// Open was called. Its methods may be called concurrently.
type Manager struct {
	prefix string
	run    string
	pools  []netip.Prefix

	nl *netlink.Handle
	// netfilter is a socket that stays: closing one waits until no packet uses
	// the rules that were replaced.
	netfilter map[int]*nl.SocketHandle
	hostns    *os.File

	mu       sync.Mutex
	networks map[string]Network // as last ensured

	ensuring  keyedLocks // network id
	plugging  keyedLocks // task id
	unplugger unplugger

	rules   ruleState
	watcher *watcher
	ending  sync.WaitGroup // nft processes
}

const (
	defaultPrefix = "bt"
	maxPrefix     = 4
)

// Open prepares the folders and the sockets. It changes nothing in the kernel.
func Open(cfg Config) (*Manager, error) {
	if cfg.Prefix == "" {
		cfg.Prefix = defaultPrefix
	}
	if err := checkPrefix(cfg.Prefix); err != nil {
		return nil, err
	}
	pools := cfg.Pools
	if len(pools) == 0 {
		pools = defaultPools()
	}
	m := &Manager{
		prefix:   cfg.Prefix,
		run:      cfg.Run,
		pools:    pools,
		networks: map[string]Network{},
	}
	m.rules.turn = make(chan struct{}, 1)
	m.rules.left = map[string]time.Time{}
	if err := os.MkdirAll(m.netnsDir(), 0o755); err != nil {
		return nil, fmt.Errorf("make the folder of network namespaces: %w", err)
	}
	var err error
	if m.hostns, err = os.Open("/proc/thread-self/ns/net"); err != nil {
		return nil, fmt.Errorf("open the host's network namespace: %w", err)
	}
	if m.nl, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		m.hostns.Close()
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	socket, err := nl.Subscribe(unix.NETLINK_NETFILTER)
	if err != nil {
		m.nl.Close()
		m.hostns.Close()
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	m.netfilter = map[int]*nl.SocketHandle{unix.NETLINK_NETFILTER: {Socket: socket}}
	if m.watcher, err = watch(m.prefix, m.rulesTouched); err != nil {
		socket.Close()
		m.nl.Close()
		m.hostns.Close()
		return nil, fmt.Errorf("watch the kernel's rules: %w", err)
	}
	return m, nil
}

// Close ends the watching and closes the sockets. Networks and rules stay.
func (m *Manager) Close() error {
	m.ending.Wait()
	m.watcher.close()
	m.netfilter[unix.NETLINK_NETFILTER].Close()
	m.nl.Close()
	return m.hostns.Close()
}

// Changed delivers when somebody else has changed or flushed our rules or
// removed a bridge or a task's link; a burst is one delivery. The next Sync
// then applies, even if what is wanted is unchanged; Ensure and Attach make
// links anew.
func (m *Manager) Changed() <-chan struct{} { return m.watcher.changed }

func (m *Manager) netnsDir() string { return filepath.Join(m.run, "netns") }

func (m *Manager) netnsPath(taskID string) string { return filepath.Join(m.netnsDir(), taskID) }

// checkPrefix keeps prefixes to what is valid in link names, nft identifiers
// and paths alike. nft wants a letter first.
func checkPrefix(p string) error {
	bad := len(p) > maxPrefix
	for i, r := range p {
		letter := 'a' <= r && r <= 'z'
		if !letter && (i == 0 || r < '0' || r > '9') {
			bad = true
		}
	}
	if bad {
		return fmt.Errorf("name prefix %q: want at most %d lower-case letters and digits, a letter first", p, maxPrefix)
	}
	return nil
}

// checkID keeps ids that name files and links to one harmless path element.
func checkID(kind, id string) error {
	if id == "" || id == "." || id == ".." || len(id) > 200 || filepath.Base(id) != id {
		return fmt.Errorf("%s id %q is not a file name", kind, id)
	}
	return nil
}

// keyedLocks is one lock per id: work on different tasks goes on in parallel.
type keyedLocks struct {
	mu   sync.Mutex
	held map[string]*countedLock
}

type countedLock struct {
	sync.Mutex
	users int
}

func (k *keyedLocks) lock(id string) (unlock func()) {
	k.mu.Lock()
	if k.held == nil {
		k.held = map[string]*countedLock{}
	}
	l := k.held[id]
	if l == nil {
		l = &countedLock{}
		k.held[id] = l
	}
	l.users++
	k.mu.Unlock()
	l.Lock()
	return func() {
		l.Unlock()
		k.mu.Lock()
		if l.users--; l.users == 0 {
			delete(k.held, id)
		}
		k.mu.Unlock()
	}
}

// gone says that a link, rule or file is absent already.
func gone(err error) bool {
	var notFound netlink.LinkNotFoundError
	return errors.As(err, &notFound) || errors.Is(err, os.ErrNotExist) ||
		errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EADDRNOTAVAIL)
}
