package agent

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"sync"

	"berth/overlaynet"
	"berth/spec"
)

// ports holds the host ports of all stacks, so that a port that somebody else
// has is an error before anything changes, and nobody takes one of ours.
type ports struct {
	mu   sync.Mutex
	held map[string]io.Closer // "stack" -> by "host:port/proto"
	of   map[string]string    // holder by "host:port/proto"
}

func newPorts() *ports { return &ports{held: map[string]io.Closer{}, of: map[string]string{}} }

func portName(host string, port uint16, proto string) string {
	return fmt.Sprintf("%s:%d/%s", host, port, proto)
}

// hold takes the ports of a revision that are not held yet. On failure it
// gives back what it took. The error for a port names its place in the file.
func (p *ports) hold(stack string, r *spec.Stack, chosen map[string]uint16) (map[string]uint16, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := map[string]uint16{}
	var took []string
	undo := func() {
		for _, name := range took {
			p.held[name].Close()
			delete(p.held, name)
			delete(p.of, name)
		}
	}
	for _, service := range sortedKeys(r.Services) {
		svc := r.Services[service]
		if svc.NetworkMode == "host" || svc.NetworkMode == "none" || svc.Replicas == 0 {
			continue
		}
		for i, port := range svc.Ports {
			key := portKey(service, i)
			name, got, err := p.take(stack, port, chosen[key])
			if name != "" {
				took = append(took, name)
			}
			if err != nil {
				undo()
				return nil, placed(r, fmt.Sprintf("services.%s.ports.%d", service, i), err)
			}
			if port.PublishedEnd != 0 || port.Published == 0 {
				out[key] = got
			}
		}
	}
	return out, nil
}

// take reserves one port and returns the name under which it is newly held
// ("" if it was held before) and its number.
func (p *ports) take(stack string, port spec.Port, chosen uint16) (string, uint16, error) {
	host, _ := netip.ParseAddr(port.HostIP)
	first, last := port.Published, max(port.Published, port.PublishedEnd)
	if chosen != 0 {
		first, last = chosen, chosen
	}
	if first == 0 {
		first, last = 32768, 60999
	}
	var firstErr error
	for n := first; ; n++ {
		name := portName(port.HostIP, n, port.Protocol)
		switch holder := p.of[name]; {
		case holder == stack && (port.Published != 0 && port.PublishedEnd == 0 || chosen == n):
			return "", n, nil
		case holder == "":
			c, err := overlaynet.Reserve(overlaynet.PublishedPort{HostIP: host, Port: n, Protocol: port.Protocol, Target: port.Target})
			if err == nil {
				p.held[name], p.of[name] = c, stack
				return name, n, nil
			}
			firstErr = errors.Join(firstErr, err)
		default:
			firstErr = errors.Join(firstErr, fmt.Errorf("port %d/%s is published by stack %s: %w", n, port.Protocol, holder, overlaynet.ErrPortInUse))
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

// keep gives back the ports that the stack holds and r does not publish.
func (p *ports) keep(stack string, r *spec.Stack, chosen map[string]uint16) {
	p.mu.Lock()
	defer p.mu.Unlock()
	wanted := map[string]bool{}
	for service, svc := range r.Services {
		for i, port := range svc.Ports {
			n := port.Published
			if c := chosen[portKey(service, i)]; c != 0 {
				n = c
			}
			wanted[portName(port.HostIP, n, port.Protocol)] = svc.Replicas > 0
		}
	}
	for name, holder := range p.of {
		if holder == stack && !wanted[name] {
			p.held[name].Close()
			delete(p.held, name)
			delete(p.of, name)
		}
	}
}

// release gives back all ports of a stack.
func (p *ports) release(stack string) { p.keep(stack, &spec.Stack{}, nil) }

func (p *ports) releaseAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.held {
		c.Close()
	}
	p.held, p.of = map[string]io.Closer{}, map[string]string{}
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
