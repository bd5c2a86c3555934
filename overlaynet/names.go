package overlaynet

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"net"
	"net/netip"
	"strings"
)

// Link names have at most 15 bytes, and both kinds of ours must be told apart
// by their text alone, because Sweep has nothing else to go by:
//
//	bt-0a1b2c3d     bridge: prefix, dash, the first 8 digits of the network id
//	btvk3x9a2mfq0   host end: prefix, v, 9 digits of a hash of the task id, index
const (
	bridgeIDLen  = 8
	taskHashLen  = 9
	maxEndpoints = 36
	ifNameMax    = 15
)

const indexDigits = "0123456789abcdefghijklmnopqrstuvwxyz"

var linkEncoding = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

func bridgeName(prefix, networkID string) string {
	if len(networkID) > bridgeIDLen {
		networkID = networkID[:bridgeIDLen]
	}
	return prefix + "-" + networkID
}

// vethBase is the name of a task's host ends without the index.
func vethBase(prefix, taskID string) string {
	sum := sha256.Sum256([]byte(taskID))
	return prefix + "v" + linkEncoding.EncodeToString(sum[:])[:taskHashLen]
}

func vethName(prefix, taskID string, index int) string {
	return vethBase(prefix, taskID) + indexDigits[index:index+1]
}

// isBridge and isVeth say whether a link of this name is one of ours.
func isBridge(prefix, name string) bool {
	return strings.HasPrefix(name, prefix+"-") && len(name) > len(prefix)+1
}

func isVeth(prefix, name string) bool {
	rest, ok := strings.CutPrefix(name, prefix+"v")
	return ok && len(rest) == taskHashLen+1 && !strings.ContainsRune(rest, '-')
}

// hardwareAddr derives a MAC from an address. The host's neighbour entry for
// an address that goes to another task then stays right.
func hardwareAddr(a netip.Addr) net.HardwareAddr {
	if a.Is4() {
		b := a.As4()
		return net.HardwareAddr{0x02, 0xbe, b[0], b[1], b[2], b[3]}
	}
	sum := sha256.Sum256(a.AsSlice())
	return net.HardwareAddr{0x02, 0xbf, sum[0], sum[1], sum[2], sum[3]}
}

// ruleName makes an nft identifier of kind and id. nft allows letters, digits
// and /-_. ; anything else becomes a dash, and a hash keeps the names apart.
func ruleName(kind, id string) string {
	const longest = 100
	clean := strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9',
			r == '/', r == '-', r == '_', r == '.':
			return r
		}
		return '-'
	}, id)
	if len(clean) > longest {
		clean = clean[:longest]
	}
	if clean == id {
		return kind + "-" + id
	}
	return kind + "-" + clean + "-" + shortHash(id)
}

func shortHash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:4])
}

// Bridge is the name of a network's bridge, whether it exists or not.
func (m *Manager) Bridge(networkID string) string { return bridgeName(m.prefix, networkID) }
