package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/sys/unix"

	"berth/spec"
	"berth/store"
)

// A probe over the network is asked from the host's network namespace, at the
// task's own address: it passes no VIP and no rule, and needs nothing in the
// image. What answers is the container, so none of it is trusted.

var errNoAddress = errors.New("it has no address")

// probeAddr is where t is asked: at the address of its default route, of the
// task whose network it shares, or of the host.
func (a *Agent) probeAddr(t *store.Task) (netip.Addr, error) {
	if t.Parent != "" {
		parent := a.w.task(t.Parent)
		if parent == nil {
			return netip.Addr{}, errNoAddress
		}
		t = parent
	}
	if t.Spec.NetworkMode == "host" {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1}), nil
	}
	var found netip.Addr
	for _, e := range t.Endpoints {
		addr := e.IPv4
		if !addr.IsValid() {
			addr = e.IPv6
		}
		if addr.IsValid() && (e.Default || !found.IsValid()) {
			found = addr
		}
	}
	if !found.IsValid() {
		return found, errNoAddress
	}
	return found, nil
}

func askNetwork(ctx context.Context, addr netip.Addr, p *spec.Probe) answer {
	switch p.Kind {
	case spec.ProbeHTTP:
		return askHTTP(ctx, addr, p)
	case spec.ProbeGRPC:
		return askGRPC(ctx, addr, p)
	}
	return askTCP(ctx, addr, p)
}

func askTCP(ctx context.Context, addr netip.Addr, p *spec.Probe) answer {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(addr, p.Port).String())
	if err != nil {
		return failed(err)
	}
	_ = c.Close()
	return answer{}
}

// maxProbeHeader bounds the header of an answer, in bytes.
const maxProbeHeader = 64 << 10

// probeTransport makes one connection and leaves none behind. The environment
// of the agent names no proxy for it.
func probeTransport() *http.Transport {
	return &http.Transport{
		DialContext:            (&net.Dialer{}).DialContext,
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxProbeHeader,
		// The certificate is for the name that clients use, if it is signed at all.
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // see above
	}
}

// askHTTP sends a GET. A redirection is an answer like any other.
func askHTTP(ctx context.Context, addr netip.Addr, p *spec.Probe) answer {
	target, err := url.ParseRequestURI(p.Path)
	if err != nil {
		return failed(err)
	}
	target.Scheme, target.Host = p.Scheme, netip.AddrPortFrom(addr, p.Port).String()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return failed(err)
	}
	req.Header.Set("User-Agent", "berth")
	for name, value := range p.Headers {
		req.Header.Set(name, value)
	}
	req.Host = p.Host // "": the address
	tr := probeTransport()
	defer tr.CloseIdleConnections()
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return failed(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, probeRead))
	ans := answer{output: fmt.Sprintf("%d %s\n%s", resp.StatusCode, http.StatusText(resp.StatusCode), body)}
	ok := resp.StatusCode >= 200 && resp.StatusCode < 400
	if p.Status != 0 {
		ok = resp.StatusCode == p.Status
	}
	if !ok {
		ans.problem = fmt.Sprintf(" answers %d", resp.StatusCode)
	}
	return ans
}

// failed says in a few words why there was no answer.
func failed(err error) answer {
	text := ""
	switch {
	case errors.Is(err, unix.ECONNREFUSED):
		text = "connection refused"
	case errors.Is(err, unix.ECONNRESET), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		text = "it closed the connection"
	case errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.ENETUNREACH):
		text = "no route to its address"
	default:
		text = oneLine(err.Error())
	}
	return answer{": " + text, text}
}

// maxProblem bounds what a line says of a foreign text, in bytes.
const maxProblem = 200

// oneLine makes a text that a container may have chosen fit for a line.
func oneLine(s string) string {
	if len(s) > maxProblem {
		s = s[:maxProblem] + "…"
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

// subject names what a probe asks, for a line: GET :8080/healthz, tcp :5432.
func subject(p *spec.Probe) string {
	port := ":" + strconv.Itoa(int(p.Port))
	switch p.Kind {
	case spec.ProbeHTTP:
		if p.Scheme != "http" {
			port = p.Scheme + "://" + port
		}
		return "GET " + port + p.Path
	case spec.ProbeExec:
		return oneLine(strings.TrimPrefix(strings.Join(p.Exec, " "), "/bin/sh -c "))
	case spec.ProbeGRPC:
		return strings.TrimSpace("grpc " + port + " " + p.GRPCService)
	}
	return p.Kind + " " + port
}
