package overlaynet

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Socket states as /proc/net shows them.
const (
	stateListen  = "0A"
	stateUnbound = "07" // of a UDP socket without a peer
)

// socketEntry is one line of /proc/thread-self/net/{tcp,tcp6,udp,udp6}.
type socketEntry struct {
	addr  netip.AddrPort
	state string
	inode string
}

// listener finds a process that listens on p's port at an address that p
// needs, other than this one, and describes it. Listeners on ::1 or on a
// gateway do not disturb a port of every address if they let themselves be
// shared (the dataplane); if not, bind has failed before.
func listener(p PublishedPort) (holder string, found bool) {
	ip := p.HostIP.Unmap()
	own := ownSockets()
	for _, family := range []struct {
		suffix string
		is6    bool
	}{{"", false}, {"6", true}} {
		for _, e := range readSockets("/proc/thread-self/net/" + p.Protocol + family.suffix) {
			if e.addr.Port() != p.Port || e.state != stateListen && e.state != stateUnbound || own[e.inode] {
				continue
			}
			at := e.addr.Addr()
			if !clash(ip, at, family.is6) {
				continue
			}
			return describe(e.inode), true
		}
	}
	return "", false
}

// clash says whether a listener at the address at takes connections to ip
// (invalid: every address). A dual-stack listener at :: takes IPv4 as well.
func clash(ip, at netip.Addr, is6 bool) bool {
	switch {
	case !ip.IsValid():
		return at.IsUnspecified()
	case ip.IsUnspecified():
		return at.IsUnspecified() && (at.Is4() == ip.Is4() || is6)
	case at.IsUnspecified():
		return at.Is4() == ip.Is4() || is6
	}
	return at == ip
}

// readSockets parses what the kernel prints; lines it cannot read are left out.
func readSockets(path string) []socketEntry {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil // this kernel lacks the protocol
	}
	var out []socketEntry
	for line := range strings.SplitSeq(string(b), "\n") {
		const local, state, inode = 1, 3, 9
		fields := strings.Fields(line)
		if len(fields) <= inode {
			continue
		}
		addr, ok := parseSocketAddr(fields[local])
		if ok {
			out = append(out, socketEntry{addr, fields[state], fields[inode]})
		}
	}
	return out
}

// parseSocketAddr reads "0100007F:1F90": 32-bit words in the byte order of the
// machine, then the port.
func parseSocketAddr(s string) (netip.AddrPort, bool) {
	host, port, ok := strings.Cut(s, ":")
	raw, err := hex.DecodeString(host)
	n, portErr := strconv.ParseUint(port, 16, 16)
	if !ok || err != nil || portErr != nil || len(raw)%4 != 0 {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(raw); i += 4 {
		binary.NativeEndian.PutUint32(raw[i:], binary.BigEndian.Uint32(raw[i:]))
	}
	a, ok := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(a.Unmap(), uint16(n)), ok
}

func ownSockets() map[string]bool {
	own := map[string]bool{}
	for _, inode := range socketsOf("self") {
		own[inode] = true
	}
	return own
}

// socketsOf lists the inodes of a process's sockets.
func socketsOf(pid string) []string {
	dir := filepath.Join("/proc", pid, "fd")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil // ended meanwhile
	}
	var out []string
	for _, e := range entries {
		to, err := os.Readlink(filepath.Join(dir, e.Name()))
		if inode, ok := strings.CutPrefix(to, "socket:["); err == nil && ok {
			out = append(out, strings.TrimSuffix(inode, "]"))
		}
	}
	return out
}

// describe names the process that has a socket: "nginx (pid 812)".
func describe(inode string) string {
	pids, err := os.ReadDir("/proc")
	if err != nil {
		return ""
	}
	for _, p := range pids {
		if _, err := strconv.Atoi(p.Name()); err != nil {
			continue
		}
		for _, i := range socketsOf(p.Name()) {
			if i != inode {
				continue
			}
			comm, err := os.ReadFile(filepath.Join("/proc", p.Name(), "comm"))
			if err != nil {
				continue
			}
			return fmt.Sprintf("%s (pid %s)", strings.TrimSpace(string(comm)), p.Name())
		}
	}
	return ""
}
