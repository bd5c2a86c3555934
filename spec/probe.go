package spec

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Defaults of a Probe.
const (
	probeInterval  = 10 * time.Second
	probeTimeout   = 5 * time.Second
	probeFailures  = 3
	probeSuccesses = 1
	// leastInterval keeps a slip of the finger from flooding a service.
	leastInterval = 100 * time.Millisecond
)

var (
	probeKinds = []string{ProbeHTTP, ProbeTCP, ProbeGRPC, ProbeExec}
	probeKeys  = slices.Concat(probeKinds, []string{"interval", "timeout", "initial_delay", "failures", "successes"})
	headerForm = lazy("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")
	httpForm   = lazy(`^(?:(https?)://)?:?([0-9]*)(/.*)?$`)
)

// probe reads x-readiness or x-liveness; nil: none, or what is wrong with it
// was reported.
func (c serviceCheck) probe(key string, v any) *Probe {
	if v == nil {
		return nil
	}
	m, ok := v.(map[string]any)
	if !ok {
		c.wrong(key, "is no mapping", `write {http: ":8080/healthz"}, or tcp, grpc or exec`)
		return nil
	}
	m = c.mapping(key, m, probeKeys)
	p := &Probe{Interval: probeInterval, Timeout: probeTimeout, Failures: probeFailures, Successes: probeSuccesses}
	var kinds []string
	for _, kind := range probeKinds {
		if _, ok := m[kind]; ok {
			kinds = append(kinds, kind)
		}
	}
	switch len(kinds) {
	case 0:
		c.fail(c.at+"."+key, c.of(key)+" says nothing to ask", "add http, tcp, grpc or exec")
		return nil
	case 1:
		p.Kind = kinds[0]
	default:
		c.fail(c.at+"."+key+"."+kinds[1], c.of(key)+" has both "+kinds[0]+" and "+kinds[1], "keep one of them")
		return nil
	}
	if d, ok := c.duration(key+".interval", m, leastInterval); ok {
		p.Interval = d
	}
	if d, ok := c.duration(key+".timeout", m, time.Millisecond); ok {
		p.Timeout = d
	}
	p.InitialDelay, _ = c.duration(key+".initial_delay", m, 0)
	if n, ok := c.integer(key+".failures", m, 1, 1000); ok {
		p.Failures = n
	}
	if n, ok := c.integer(key+".successes", m, 1, 1000); ok {
		p.Successes = n
	}
	at := key + "." + p.Kind
	switch p.Kind {
	case ProbeHTTP:
		c.probeHTTP(at, m[ProbeHTTP], p)
	case ProbeTCP:
		c.probePort(at, m[ProbeTCP], p, "port")
	case ProbeGRPC:
		more := c.probePort(at, m[ProbeGRPC], p, "port", "service")
		p.GRPCService = c.text(at+".service", more)
	case ProbeExec:
		c.probeExec(at, m[ProbeExec], p)
		return p
	}
	c.probeAddress(at, p)
	return p
}

// probeHTTP takes :8080/healthz, /healthz, 8080, https://:8443/ or the map.
func (c serviceCheck) probeHTTP(at string, v any, p *Probe) {
	p.Scheme, p.Path = "http", "/"
	m, ok := v.(map[string]any)
	if !ok && v != nil {
		text := fmt.Sprint(v)
		parts := httpForm().FindStringSubmatch(text)
		if parts == nil || text == "" {
			c.wrong(at, fmt.Sprintf("is %q, which is no port and path", text), "write :8080/healthz: the task's own address is asked")
			p.Port = anyPort
			return
		}
		p.Scheme, p.Path = cmp.Or(parts[1], p.Scheme), cmp.Or(parts[3], p.Path)
		if parts[2] != "" {
			p.Port = c.port(at, parts[2])
		}
		c.checkPath(at, p.Path)
		return
	}
	if v == nil {
		return
	}
	m = c.mapping(at, m, []string{"path", "port", "scheme", "host", "headers", "status"})
	if s := c.text(at+".path", m); s != "" {
		p.Path = s
		c.checkPath(at+".path", s)
	}
	if s := c.text(at+".port", m); s != "" {
		p.Port = c.port(at+".port", s)
	}
	switch s := c.text(at+".scheme", m); s {
	case "":
	case "http", "https":
		p.Scheme = s
	default:
		c.wrong(at+".scheme", fmt.Sprintf("is %q", s), "write http or https")
	}
	if p.Host = c.text(at+".host", m); strings.ContainsAny(p.Host, "/ \r\n") {
		c.wrong(at+".host", fmt.Sprintf("is %q", p.Host), "write a host name: it is sent as the Host header")
	}
	p.Status, _ = c.integer(at+".status", m, 100, 599)
	c.headers(at+".headers", m["headers"], p)
}

func (c serviceCheck) checkPath(at, path string) {
	if !strings.HasPrefix(path, "/") || strings.ContainsAny(path, " \r\n\t") {
		c.wrong(at, fmt.Sprintf("is %q, which is no path", path), "write /healthz")
	}
}

func (c serviceCheck) headers(at string, v any, p *Probe) {
	if v == nil {
		return
	}
	m, ok := v.(map[string]any)
	if !ok {
		c.wrong(at, "is no mapping", "write {NAME: value}")
		return
	}
	for _, name := range sortedKeys(m) {
		value := c.text(at+"."+name, m)
		switch {
		case strings.EqualFold(name, "host"):
			c.fail(c.at+"."+at+"."+name, "the Host header has its own key", "write host beside path")
		case !headerForm().MatchString(name), strings.ContainsAny(value, "\r\n\x00"):
			c.fail(c.at+"."+at+"."+name, fmt.Sprintf("%q is no header", name), "write NAME: value")
		default:
			if p.Headers == nil {
				p.Headers = map[string]string{}
			}
			p.Headers[name] = value
		}
	}
}

// probePort takes 5432, ":5432" or a map with port; it gives the map.
func (c serviceCheck) probePort(at string, v any, p *Probe, known ...string) map[string]any {
	switch m := v.(type) {
	case nil:
	case map[string]any:
		m = c.mapping(at, m, known)
		if s := c.text(at+".port", m); s != "" {
			p.Port = c.port(at+".port", s)
		}
		return m
	default:
		p.Port = c.port(at, strings.TrimPrefix(fmt.Sprint(v), ":"))
	}
	return nil
}

// anyPort stands for one that was reported as wrong.
const anyPort = 1

func (c serviceCheck) port(at, text string) uint16 {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 {
		c.wrong(at, fmt.Sprintf("is %q, which is no port", text), "write a number from 1 to 65535")
		return anyPort
	}
	return uint16(n)
}

// probeAddress finds the port of a probe that has none, and says when the
// service has no address to ask.
func (c serviceCheck) probeAddress(at string, p *Probe) {
	if c.s.NetworkMode == "none" {
		c.fail(c.at+"."+at, "service "+c.name+" has no network to be asked over ("+c.l.where(c.at+".network_mode")+")", "use exec")
		return
	}
	if p.Port != 0 {
		return
	}
	var ports []string
	add := func(port string) {
		if !slices.Contains(ports, port) {
			ports = append(ports, port)
		}
	}
	for _, port := range c.s.Ports {
		if port.Protocol == "tcp" || port.Protocol == "" {
			add(strconv.FormatUint(uint64(port.Target), 10))
		}
	}
	for _, e := range c.s.Expose {
		if port, proto, _ := strings.Cut(exposed(e), "/"); proto == "tcp" || proto == "" {
			add(port)
		}
	}
	if len(ports) == 1 {
		if n, err := strconv.ParseUint(ports[0], 10, 16); err == nil && n > 0 {
			p.Port = uint16(n)
			return
		}
	}
	example := map[string]string{ProbeHTTP: "http: :8080" + p.Path, ProbeTCP: "tcp: 8080", ProbeGRPC: "grpc: 8080"}[p.Kind]
	switch len(ports) {
	case 0:
		c.fail(c.at+"."+at, c.of(at)+" has no port, and the service has none under ports or expose", "write "+example)
	default:
		c.fail(c.at+"."+at, c.of(at)+" has no port, and the service has "+strings.Join(ports, ", "),
			"write "+strings.Replace(example, "8080", ports[0], 1))
	}
}

// probeExec takes a list of arguments, or a text for /bin/sh, as healthcheck
// does.
func (c serviceCheck) probeExec(at string, v any, p *Probe) {
	switch v := v.(type) {
	case string:
		if strings.TrimSpace(v) != "" {
			p.Exec = []string{"/bin/sh", "-c", v}
			return
		}
	case []any:
		for i, arg := range v {
			switch arg.(type) {
			case nil, map[string]any, []any:
				c.wrong(fmt.Sprintf("%s.%d", at, i), "is no text", "write one argument")
			}
			p.Exec = append(p.Exec, fmt.Sprint(arg))
		}
		if len(p.Exec) > 0 && (p.Exec[0] == "CMD" || p.Exec[0] == "CMD-SHELL") {
			c.wrong(at, "begins with "+p.Exec[0], "begin the list with the program")
			return
		}
		if len(p.Exec) > 0 && p.Exec[0] != "" {
			return
		}
	}
	c.wrong(at, "has no command", `write ["PROGRAM", "ARGUMENT"], or one text for /bin/sh`)
}
