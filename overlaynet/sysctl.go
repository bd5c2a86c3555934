package overlaynet

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"
)

// procSysNet shows the network namespace of the thread that opens it.
const procSysNet = "/proc/sys/net"

// sysctl is one value below /proc/sys/net. optional: the kernel may lack it.
type sysctl struct {
	path, value string
	optional    bool
}

// setSysctls writes what differs, in order.
func setSysctls(list []sysctl) error {
	for _, s := range list {
		path := filepath.Join(procSysNet, s.path)
		// Without O_CREATE: a missing file in /proc is ENOENT, not EACCES.
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err == nil {
			_, err = f.WriteString(s.value)
			f.Close()
		}
		if s.optional && os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("set sysctl net.%s to %s: %w", strings.ReplaceAll(s.path, "/", "."), s.value, err)
		}
	}
	return nil
}

func readSysctl(path string) string {
	b, err := os.ReadFile(filepath.Join(procSysNet, path))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// forward4 and forward6 turn routing on, and put down which links the host had
// before: a host that was no router must not become one between them. The
// rules drop what would pass from one of those links to another (lessons: who
// turns ip_forward on owes the host a filter). A host that routed already
// keeps doing so.
//
// With IPv6 forwarding the kernel stops listening to router advertisements on
// links with accept_ra=1, and the host would lose its default route when it
// expires: those links go to accept_ra=2 first.
func (m *Manager) forward4() error {
	if readSysctl("ipv4/ip_forward") == "1" {
		return nil
	}
	if err := m.keepClosed("4"); err != nil {
		return err
	}
	return setSysctls([]sysctl{{path: "ipv4/ip_forward", value: "1"}})
}

func (m *Manager) forward6() error {
	if readSysctl("ipv6/conf/all/forwarding") == "1" {
		return nil
	}
	if err := m.keepClosed("6"); err != nil {
		return err
	}
	dirs, err := filepath.Glob(filepath.Join(procSysNet, "ipv6/conf/*"))
	if err != nil {
		return err
	}
	var list []sysctl
	for _, dir := range dirs {
		name := filepath.Base(dir)
		file := "ipv6/conf/" + name + "/accept_ra"
		if name != "all" && readSysctl(file) == "1" {
			list = append(list, sysctl{path: file, value: "2", optional: true})
		}
	}
	return setSysctls(append(list, sysctl{path: "ipv6/conf/all/forwarding", value: "1"}))
}

// keepClosed records, for this boot, the links between which nothing may be
// forwarded in this family. The file is below Run: the sysctl is as volatile.
func (m *Manager) keepClosed(family string) error {
	links, err := complete(m.nl.LinkList)
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	var names []string
	for _, l := range links {
		name := l.Attrs().Name
		if name != "lo" && !isBridge(m.prefix, name) && !isVeth(m.prefix, name) {
			names = append(names, name)
		}
	}
	err = renameio.WriteFile(m.closedFile(family), []byte(strings.Join(names, "\n")), 0o644)
	if err != nil {
		return fmt.Errorf("record that forwarding was off: %w", err)
	}
	return nil
}

func (m *Manager) closedFile(family string) string {
	return filepath.Join(m.run, "forwarding-was-off-ipv"+family)
}

func (m *Manager) closedLinks(family string) ([]string, error) {
	b, err := os.ReadFile(m.closedFile(family))
	if os.IsNotExist(err) {
		return nil, nil
	}
	return strings.Fields(string(b)), err
}
