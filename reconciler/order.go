package reconciler

import (
	"fmt"
	"strings"

	"berth/spec"
)

// Order of a replacement.
type Order int

// Orders. StartFirst is the default: the new task is ready before the old one
// ends.
const (
	StartFirst Order = iota
	StopFirst
)

// String gives Compose's name.
func (o Order) String() string { return [...]string{"start-first", "stop-first"}[o] }

// OrderOf chooses the order for s and says why it is not start-first.
// writable names what the tasks of s write to and share with their successor,
// such as "volume pgdata". deploy.update_config.order always wins.
func OrderOf(s *spec.Service, writable []string) (Order, string) {
	if s.Update != nil {
		switch s.Update.Order {
		case "start-first":
			return StartFirst, ""
		case "stop-first":
			return StopFirst, "update_config.order"
		}
	}
	switch {
	case s.NetworkMode == "host":
		return StopFirst, "network_mode host: old and new would share ports"
	case strings.HasPrefix(s.NetworkMode, "service:"), strings.HasPrefix(s.NetworkMode, "container:"):
		return StopFirst, "network_mode " + s.NetworkMode + ": old and new would share ports"
	}
	for _, a := range s.Networks {
		if a.IPv4 != "" {
			return StopFirst, "static address " + a.IPv4
		}
		if a.IPv6 != "" {
			return StopFirst, "static address " + a.IPv6
		}
		if a.MAC != "" {
			return StopFirst, "static address " + a.MAC
		}
	}
	if s.MACAddress != "" {
		return StopFirst, "static address " + s.MACAddress
	}
	if s.Replicas <= 1 && len(writable) > 0 {
		return StopFirst, fmt.Sprintf("%s has one writer", writable[0])
	}
	return StartFirst, ""
}
