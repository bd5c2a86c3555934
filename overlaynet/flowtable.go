package overlaynet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// flow is an entry of the kernel's table of connections.
type flow struct {
	family   netlink.InetFamily
	protocol uint8
	to       netip.AddrPort // what the client addressed
	from     netip.Addr     // who answers
	state    uint8          // of TCP
	timeout  uint32         // seconds that it has left
	// packets of the client and answers to them; 0 if the entry is from before
	// they were counted.
	packets, answers uint64
	original         []byte // what names the entry
}

// Which parts of a tuple pick entries of a dump (enum in the kernel's
// nf_internals.h); it does the picking since Linux 5.8, and before gives all.
const (
	ctaFilter           = 25
	ctaFilterOrigFlags  = 1
	ctaFilterReplyFlags = 2
	ctaFilterSource     = 1 << 0
	ctaFilterProtocol   = 1 << 3
)

// picked are the attributes of a dump of some flows. A busy host has some
// hundred thousand: reading all takes seconds of CPU.
type picked []*nl.RtAttr

// answeredBy picks the flows that an address answers.
func answeredBy(a netip.Addr) picked {
	kind := nl.CTA_IP_V4_SRC
	if a.Is6() {
		kind = nl.CTA_IP_V6_SRC
	}
	return pick(ctaFilterReplyFlags, ctaFilterSource, nl.CTA_TUPLE_REPLY, nl.CTA_TUPLE_IP, nl.NewRtAttr(kind, a.AsSlice()))
}

// overUDP picks the flows of UDP.
func overUDP() picked {
	return pick(ctaFilterOrigFlags, ctaFilterProtocol, nl.CTA_TUPLE_ORIG, nl.CTA_TUPLE_PROTO,
		nl.NewRtAttr(nl.CTA_PROTO_NUM, nl.Uint8Attr(unix.IPPROTO_UDP)))
}

func pick(direction int, flags uint32, tuple, part int, value *nl.RtAttr) picked {
	filter := nl.NewRtAttr(unix.NLA_F_NESTED|ctaFilter, nil)
	for _, d := range []int{ctaFilterOrigFlags, ctaFilterReplyFlags} {
		var f uint32
		if d == direction {
			f = flags
		}
		filter.AddRtAttr(d, nl.Uint32Attr(f))
	}
	t := nl.NewRtAttr(unix.NLA_F_NESTED|tuple, nil)
	t.AddRtAttr(unix.NLA_F_NESTED|part, nil).AddChild(value)
	return picked{t, filter}
}

// flows lists entries of one family.
func (m *Manager) flows(family netlink.InetFamily, p picked) ([]flow, error) {
	msgs, err := complete(func() ([][]byte, error) {
		return m.conntrack(family, nl.IPCTNL_MSG_CT_GET, unix.NLM_F_DUMP, p...)
	})
	if err != nil {
		return nil, fmt.Errorf("list connections: %w", err)
	}
	out := make([]flow, 0, len(msgs))
	for _, msg := range msgs {
		f, err := readFlow(msg[nfgenmsgLen:])
		if err != nil {
			return nil, fmt.Errorf("read a connection: %w", err)
		}
		out = append(out, f)
	}
	return out, nil
}

// look reads one entry as it is now; nil: it is gone.
func (m *Manager) look(f flow) (*flow, error) {
	// The kernel calls its answer one of many, so something has to end it.
	msgs, err := m.conntrack(f.family, nl.IPCTNL_MSG_CT_GET, unix.NLM_F_ACK, nl.NewRtAttr(unix.NLA_F_NESTED|nl.CTA_TUPLE_ORIG, f.original))
	if errors.Is(err, unix.ENOENT) || err == nil && len(msgs) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	now, err := readFlow(msgs[0][nfgenmsgLen:])
	now.family = f.family
	return &now, err
}

// forget deletes an entry. One that is gone already is no error.
func (m *Manager) forget(family netlink.InetFamily, f flow) error {
	_, err := m.conntrack(family, nl.IPCTNL_MSG_CT_DELETE, unix.NLM_F_ACK,
		nl.NewRtAttr(unix.NLA_F_NESTED|nl.CTA_TUPLE_ORIG, f.original))
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

func (m *Manager) conntrack(family netlink.InetFamily, kind, flags int, attrs ...*nl.RtAttr) ([][]byte, error) {
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_CTNETLINK<<8|kind, flags)
	req.Sockets = m.netfilter
	req.AddData(&nl.Nfgenmsg{NfgenFamily: uint8(family), Version: nl.NFNETLINK_V0})
	for _, a := range attrs {
		req.AddData(a)
	}
	return req.Execute(unix.NETLINK_NETFILTER, 0)
}

// readFlow reads the attributes of a message; numbers are in network order.
func readFlow(b []byte) (flow, error) {
	f := flow{original: attr(b, nl.CTA_TUPLE_ORIG)}
	ip, proto := attr(f.original, nl.CTA_TUPLE_IP), attr(f.original, nl.CTA_TUPLE_PROTO)
	to, err := addrIn(ip, nl.CTA_IP_V4_DST, nl.CTA_IP_V6_DST)
	if err != nil {
		return f, err
	}
	f.from, err = addrIn(attr(attr(b, nl.CTA_TUPLE_REPLY), nl.CTA_TUPLE_IP), nl.CTA_IP_V4_SRC, nl.CTA_IP_V6_SRC)
	if err != nil {
		return f, err
	}
	var port uint16
	if p := attr(proto, nl.CTA_PROTO_DST_PORT); len(p) == 2 { // ICMP has none
		port = binary.BigEndian.Uint16(p)
	}
	f.to = netip.AddrPortFrom(to, port)
	if p := attr(proto, nl.CTA_PROTO_NUM); len(p) == 1 {
		f.protocol = p[0]
	}
	if s := attr(attr(attr(b, nl.CTA_PROTOINFO), nl.CTA_PROTOINFO_TCP), nl.CTA_PROTOINFO_TCP_STATE); len(s) == 1 {
		f.state = s[0]
	}
	if t := attr(b, nl.CTA_TIMEOUT); len(t) == 4 {
		f.timeout = binary.BigEndian.Uint32(t)
	}
	f.packets, f.answers = packetsIn(attr(b, nl.CTA_COUNTERS_ORIG)), packetsIn(attr(b, nl.CTA_COUNTERS_REPLY))
	return f, nil
}

// ctaCountersPackets is CTA_COUNTERS_PACKETS of enum ctattr_counters.
const ctaCountersPackets = 1

func packetsIn(counters []byte) uint64 {
	if n := attr(counters, ctaCountersPackets); len(n) == 8 {
		return binary.BigEndian.Uint64(n)
	}
	return 0
}

func addrIn(ip []byte, v4, v6 int) (netip.Addr, error) {
	for _, kind := range []int{v4, v6} {
		if a, ok := netip.AddrFromSlice(attr(ip, kind)); ok {
			return a, nil
		}
	}
	return netip.Addr{}, errors.New("no address")
}
