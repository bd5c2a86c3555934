package overlaynet

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// load puts the whole table in force.
func (m *Manager) load(ctx context.Context, t table) (gen uint32, err error) {
	there, err := m.names()
	if err != nil {
		return 0, err
	}
	if there != nil {
		if gen, err = m.nft(ctx, t.refill(m.prefix, *there)); err == nil {
			return gen, nil
		}
		// A chain or a set of the same name is not what ours is: another
		// version made it.
	}
	return m.nft(ctx, m.deletion()+t.text(m.prefix))
}

// deletion deletes the table, also if it is not there.
func (m *Manager) deletion() string {
	return fmt.Sprintf("add table inet %[1]s\ndelete table inet %[1]s\n", m.prefix)
}

// nft hands the text to nft, which is one transaction: all or nothing. It
// returns when the kernel has made it, with its generation, or 0 if the kernel's
// message of it was lost. The process goes on for some 15 ms: closing its
// socket waits until no packet uses what was replaced.
func (m *Manager) nft(ctx context.Context, text string) (gen uint32, err error) {
	cmd := exec.CommandContext(ctx, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(text)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	made, err := m.watcher.start(cmd)
	if err != nil {
		return 0, fmt.Errorf("run nft: %w", err)
	}
	ended := make(chan error, 1)
	m.ending.Go(func() { ended <- cmd.Wait() })
	select {
	case gen := <-made:
		return gen, nil
	case err = <-ended:
	}
	if err != nil {
		m.watcher.forget(cmd.Process.Pid)
		first, _, _ := strings.Cut(strings.TrimSpace(stderr.String()), "\n")
		return 0, fmt.Errorf("change nftables table %s: %w: %s", m.prefix, err, first)
	}
	select {
	case gen := <-made:
		return gen, nil
	case <-time.After(settle):
		return 0, nil
	}
}

// names are the chains and sets of a table; sets by their kind, set or map.
type names struct {
	chains map[string]bool
	sets   map[string]string
}

// names reads those of our table from the kernel; nil: there is no table.
func (m *Manager) names() (*names, error) {
	// The attribute that names the table is the first one of every request:
	// NFTA_TABLE_NAME, NFTA_SET_TABLE and so on.
	byTable := nl.NewRtAttr(unix.NFTA_TABLE_NAME, nl.ZeroTerminated(m.prefix))
	for range dumpTries {
		_, err := m.nftRequest(unix.NFT_MSG_GETTABLE, 0, byTable)
		if errors.Is(err, unix.ENOENT) {
			return nil, nil
		}
		chains, err2 := m.nftRequest(unix.NFT_MSG_GETCHAIN, unix.NLM_F_DUMP)
		sets, err3 := m.nftRequest(unix.NFT_MSG_GETSET, unix.NLM_F_DUMP, byTable)
		err = errors.Join(err, err2, err3)
		if errors.Is(err, netlink.ErrDumpInterrupted) {
			continue // a transaction fell into the dump
		}
		if err != nil {
			return nil, fmt.Errorf("list nftables table %s: %w", m.prefix, err)
		}
		return m.readNames(chains, sets), nil
	}
	return nil, fmt.Errorf("list nftables table %s: %w", m.prefix, netlink.ErrDumpInterrupted)
}

func (m *Manager) readNames(chains, sets [][]byte) *names {
	out := &names{map[string]bool{}, map[string]string{}}
	for _, msg := range chains { // of all tables
		if isOurs(msg, m.prefix) {
			out.chains[stringAttr(msg, unix.NFTA_CHAIN_NAME)] = true
		}
	}
	for _, msg := range sets {
		flags := attr(msg[nfgenmsgLen:], unix.NFTA_SET_FLAGS)
		kind := "set"
		if len(flags) == 4 {
			if binary.BigEndian.Uint32(flags)&unix.NFT_SET_ANONYMOUS != 0 {
				continue // goes with its rule
			}
			if binary.BigEndian.Uint32(flags)&unix.NFT_SET_MAP != 0 {
				kind = "map"
			}
		}
		out.sets[stringAttr(msg, unix.NFTA_SET_NAME)] = kind
	}
	return out
}

const nfgenmsgLen = 4

func (m *Manager) nftRequest(kind, flags int, attrs ...*nl.RtAttr) ([][]byte, error) {
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|kind, flags)
	req.Sockets = m.netfilter
	req.AddData(&nl.Nfgenmsg{NfgenFamily: unix.NFPROTO_INET, Version: nl.NFNETLINK_V0})
	for _, a := range attrs {
		req.AddData(a)
	}
	return req.Execute(unix.NETLINK_NETFILTER, 0)
}

// generation is the number of nftables transactions of this network namespace.
func (m *Manager) generation() (uint32, error) {
	msgs, err := m.nftRequest(unix.NFT_MSG_GETGEN, 0)
	if err != nil {
		return 0, fmt.Errorf("ask for the nftables generation: %w", err)
	}
	for _, msg := range msgs {
		if b := attr(msg[nfgenmsgLen:], unix.NFTA_GEN_ID); len(b) == 4 {
			return binary.BigEndian.Uint32(b), nil
		}
	}
	return 0, errors.New("ask for the nftables generation: no number in the answer")
}

// isOurs says whether a message is of our table; its name is the first
// attribute of all kinds.
func isOurs(msg []byte, prefix string) bool {
	return len(msg) >= nfgenmsgLen && msg[0] == unix.NFPROTO_INET && stringAttr(msg, unix.NFTA_TABLE_NAME) == prefix
}

func stringAttr(msg []byte, kind int) string {
	return nl.BytesToString(attr(msg[nfgenmsgLen:], kind))
}

func attr(b []byte, kind int) []byte {
	attrs, err := nl.ParseRouteAttr(b)
	if err != nil {
		return nil
	}
	for _, a := range attrs {
		if int(a.Attr.Type&nl.NLA_TYPE_MASK) == kind {
			return a.Value
		}
	}
	return nil
}
