package agent

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"berth/overlaynet"
	"berth/spec"
)

// ports holds the host ports of all stacks, so that a port that somebody else
// has is an error before anything changes, and nobody takes one of ours.
type ports struct {
	reserve func(overlaynet.PublishedPort) (io.Closer, error)

	mu   sync.Mutex
	held map[string]*holding // by portName
}

// ofTask begins what stands for a stack where a one-off task holds a port.
const ofTask = "task "

// holding is one reserved port.
type holding struct {
	stack  string // or ofTask and a name
	claims []string
	socket io.Closer
}

func newPorts() *ports { return &ports{reserve: overlaynet.Reserve, held: map[string]*holding{}} }

func portName(host string, port uint16, proto string) string {
	return fmt.Sprintf("%s:%d/%s", host, port, proto)
}

// portClaims are what a port takes that nobody else may take: every address of
// the host is 0.0.0.0 and [::]. One address beside every address is no
// conflict (overlaynet.Check): the closer one wins.
func portClaims(host string, port uint16, proto string) []string {
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return []string{portName("0.0.0.0", port, proto), portName("::", port, proto)}
	}
	return []string{portName(ip.Unmap().String(), port, proto)}
}

// hold takes the ports of a revision that are not held yet. On failure it
// gives back what it took. The error for a port names its place in the file.
func (p *ports) hold(stack string, r *spec.Stack, chosen map[string]uint16) (map[string]uint16, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := map[string]uint16{}
	var took []string
	mine := map[string]string{} // claim: service of this revision
	for _, service := range sortedKeys(r.Services) {
		svc := r.Services[service]
		if !publishes(&svc) {
			continue
		}
		for i, port := range svc.Ports {
			key := portKey(service, i)
			name, got, err := p.take(stack, port, chosen[key], mine)
			if name != "" {
				took = append(took, name)
			}
			if err != nil {
				for _, name := range took {
					p.drop(name)
				}
				return nil, placed(r, fmt.Sprintf("services.%s.ports.%d", service, i), err)
			}
			for _, c := range portClaims(port.HostIP, got, port.Protocol) {
				mine[c] = service
			}
			if isChosen(port) {
				out[key] = got
			}
		}
	}
	return out, nil
}

// publishes says that the ports of s are mapped from the host.
func publishes(s *spec.Service) bool {
	return s.NetworkMode != "host" && s.NetworkMode != "none" && s.Replicas > 0
}

// isChosen says that the agent chooses the host port of p, from a range or
// from all.
func isChosen(p spec.Port) bool { return p.PublishedEnd != 0 || p.Published == 0 }

// take reserves one port and returns the name under which it is newly held
// ("" if it was held before) and its number. chosen is what it was before.
func (p *ports) take(stack string, port spec.Port, chosen uint16, mine map[string]string) (string, uint16, error) {
	host, _ := netip.ParseAddr(port.HostIP)
	first, last := port.Published, max(port.Published, port.PublishedEnd)
	if first == 0 {
		first, last = 32768, 60999
	}
	if isChosen(port) && first <= chosen && chosen <= last {
		first, last = chosen, chosen
	}
	var firstErr error
	for n := first; ; n++ {
		name := portName(port.HostIP, n, port.Protocol)
		by := p.holder(stack, portClaims(port.HostIP, n, port.Protocol), mine)
		own := p.held[name]
		switch {
		case by != "":
			firstErr = errors.Join(firstErr, fmt.Errorf("port %d/%s is published by %s: %w", n, port.Protocol, by, overlaynet.ErrPortInUse))
		case own != nil:
			return "", n, nil
		default:
			c, err := p.reserve(overlaynet.PublishedPort{HostIP: host, Port: n, Protocol: port.Protocol, Target: port.Target})
			if err == nil {
				p.held[name] = &holding{stack: stack, claims: portClaims(port.HostIP, n, port.Protocol), socket: c}
				return name, n, nil
			}
			firstErr = errors.Join(firstErr, err)
		}
		if n == last {
			break
		}
	}
	if first != last {
		return "", 0, fmt.Errorf("no free port in %d-%d/%s: %w", first, last, port.Protocol, overlaynet.ErrPortInUse)
	}
	return "", 0, firstErr
}

// holder names another stack, or a service of this revision, that has one of
// the claims; "" if nobody does.
func (p *ports) holder(stack string, claims []string, mine map[string]string) string {
	for _, c := range claims {
		if s := mine[c]; s != "" {
			return "service " + s
		}
		for _, h := range p.held {
			if h.stack == stack || !slices.Contains(h.claims, c) {
				continue
			}
			if strings.HasPrefix(h.stack, ofTask) {
				return h.stack
			}
			return "stack " + h.stack
		}
	}
	return ""
}

// drop gives back one port.
func (p *ports) drop(name string) {
	p.held[name].socket.Close()
	delete(p.held, name)
}

// keep gives back the ports that the stack holds and r does not publish.
func (p *ports) keep(stack string, r *spec.Stack, chosen map[string]uint16) {
	p.mu.Lock()
	defer p.mu.Unlock()
	wanted := map[string]bool{}
	for service, svc := range r.Services {
		if !publishes(&svc) {
			continue
		}
		for i, port := range svc.Ports {
			n := port.Published
			if c := chosen[portKey(service, i)]; c != 0 {
				n = c
			}
			wanted[portName(port.HostIP, n, port.Protocol)] = true
		}
	}
	for name, h := range p.held {
		if h.stack == stack && !wanted[name] {
			p.drop(name)
		}
	}
}

// release gives back all ports of a stack.
func (p *ports) release(stack string) { p.keep(stack, &spec.Stack{}, nil) }

func (p *ports) releaseAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name := range p.held {
		p.drop(name)
	}
}

// placedError is an error with a place in the user's file.
type placedError struct {
	pos spec.Position
	err error
}

func (e *placedError) Error() string { return e.err.Error() }
func (e *placedError) Unwrap() error { return e.err }

// placed adds the position of path, or of the nearest path above it.
func placed(st *spec.Stack, path string, err error) error {
	if pos := position(st, path); pos != nil {
		return &placedError{pos: *pos, err: err}
	}
	return err
}

func position(st *spec.Stack, path string) *spec.Position {
	for path != "" {
		if pos, ok := st.Positions[path]; ok {
			return &pos
		}
		cut := -1
		for i := range path {
			if path[i] == '.' {
				cut = i
			}
		}
		if cut < 0 {
			return nil
		}
		path = path[:cut]
	}
	return nil
}
