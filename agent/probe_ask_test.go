package agent

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"berth/spec"
	"berth/store"
	"berth/testbed"
)

var loopback4 = netip.MustParseAddr("127.0.0.1")

// portOf is the port of a server on loopback.
func portOf(t *testing.T, address string) uint16 {
	t.Helper()
	addr, err := netip.ParseAddrPort(strings.TrimPrefix(strings.TrimPrefix(address, "http://"), "https://"))
	if err != nil {
		t.Fatal(err)
	}
	return addr.Port()
}

// ask asks once, for at most two seconds.
func ask(t *testing.T, p *spec.Probe) answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	return askNetwork(ctx, loopback4, p)
}

func httpProbe(port uint16, path string) *spec.Probe {
	return &spec.Probe{Kind: spec.ProbeHTTP, Port: port, Path: path, Scheme: "http"}
}

func TestAskHTTP_StatusDecides(t *testing.T) {
	var elsewhere atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	defer other.Close()
	mux := http.NewServeMux()
	mux.HandleFunc("/status/{code}", func(w http.ResponseWriter, r *http.Request) {
		var code int
		_, _ = fmt.Sscan(r.PathValue("code"), &code)
		w.Header().Set("Location", other.URL)
		w.WriteHeader(code)
		_, _ = io.WriteString(w, "because")
	})
	mux.HandleFunc("/me", func(w http.ResponseWriter, r *http.Request) {
		if r.Host != "shop.example" || r.Header.Get("X-Token") != "a b" || r.Method != http.MethodGet || r.URL.RawQuery != "deep=1" {
			w.WriteHeader(http.StatusBadRequest)
		}
	})
	mux.HandleFunc("/endless", func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 1<<16)); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("/header", func(w http.ResponseWriter, _ *http.Request) {
		for i := range 2000 {
			w.Header().Set(fmt.Sprintf("X-%d", i), strings.Repeat("x", 100))
		}
	})
	s := httptest.NewServer(mux)
	defer s.Close()
	port := portOf(t, s.URL)
	for _, c := range []struct {
		path    string
		status  int
		problem string
	}{
		{"/status/200", 0, ""},
		{"/status/204", 0, ""},
		{"/status/302", 0, ""},
		{"/status/307", 0, ""},
		{"/status/400", 0, " answers 400"},
		{"/status/503", 0, " answers 503"},
		{"/status/503", 503, ""},
		{"/status/200", 204, " answers 200"},
		{"/endless", 0, ""},
		{"/me?deep=1", 0, ""},
	} {
		p := httpProbe(port, c.path)
		p.Status, p.Host, p.Headers = c.status, "shop.example", map[string]string{"X-Token": "a b"}
		ans := ask(t, p)
		if ans.problem != c.problem {
			t.Errorf("%s, wanted %d: %q, want %q", c.path, c.status, ans.problem, c.problem)
		}
		if len(ans.output) > probeRead+100 {
			t.Errorf("%s: %d bytes of output", c.path, len(ans.output))
		}
	}
	if ans := ask(t, httpProbe(port, "/header")); ans.ok() {
		t.Error("a header of 200 kB is taken")
	}
	if got := ask(t, httpProbe(port, "/status/500")).output; got != "500 Internal Server Error\nbecause" {
		t.Errorf("output %q", got)
	}
	if n := elsewhere.Load(); n != 0 {
		t.Errorf("a redirection was followed %d times", n)
	}
}

func TestAskHTTP_TLS_AnyCertificate(t *testing.T) {
	s := httptest.NewTLSServer(http.NotFoundHandler())
	defer s.Close()
	p := httpProbe(portOf(t, s.URL), "/")
	p.Scheme = "https"
	if ans := ask(t, p); ans.problem != " answers 404" {
		t.Errorf("%q", ans.problem)
	}
}

// serveRaw answers each connection with f.
func serveRaw(t *testing.T, f func(net.Conn)) uint16 {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	testbed.Accept(t, l, f)
	return portOf(t, l.Addr().String())
}

func TestAsk_NoAnswer_SaysWhy(t *testing.T) {
	free := serveRaw(t, func(net.Conn) {})
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := portOf(t, l.Addr().String())
	l.Close()
	rude := serveRaw(t, func(c net.Conn) {
		_, _ = io.WriteString(c, "\x1b[2J"+strings.Repeat("nonsense ", 100)+"\r\n\r\n")
		_, _ = io.Copy(io.Discard, c)
	})
	for _, c := range []struct {
		kind string
		port uint16
		want string
	}{
		{spec.ProbeTCP, closed, ": connection refused"},
		{spec.ProbeHTTP, closed, ": connection refused"},
		{spec.ProbeGRPC, closed, ": connection refused"},
		{spec.ProbeHTTP, free, ": it closed the connection"},
		{spec.ProbeTCP, free, ""},
	} {
		p := &spec.Probe{Kind: c.kind, Port: c.port, Path: "/", Scheme: "http"}
		if ans := ask(t, p); ans.problem != c.want {
			t.Errorf("%s: %q, want %q", c.kind, ans.problem, c.want)
		}
	}
	for _, kind := range []string{spec.ProbeHTTP, spec.ProbeGRPC} {
		ans := ask(t, &spec.Probe{Kind: kind, Port: rude, Path: "/", Scheme: "http"})
		if ans.ok() || len(ans.problem) > maxProblem+10 || strings.ContainsAny(ans.problem, "\x1b\r\n") {
			t.Errorf("%s: %q", kind, ans.problem)
		}
	}
}

// health is a gRPC health service as the protocol has it on the wire.
type health struct {
	status  string // Grpc-Status
	message string // the frame, hex
	early   bool   // the status stands in the header: there is no message
}

func (h *health) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	if r.ProtoMajor != 2 || r.URL.Path != "/grpc.health.v1.Health/Check" || r.Header.Get("Te") != "trailers" ||
		hex.EncodeToString(body) != "00000000060a0473686f70" {
		w.WriteHeader(http.StatusTeapot)
		return
	}
	w.Header().Set("Content-Type", "application/grpc+proto")
	if h.early {
		w.Header().Set("Grpc-Status", h.status)
		return
	}
	w.Header().Set("Trailer", "Grpc-Status")
	message, _ := hex.DecodeString(h.message)
	_, _ = w.Write(message)
	w.Header().Set("Grpc-Status", h.status)
}

func TestAskGRPC_SpeaksTheHealthProtocol(t *testing.T) {
	h := &health{}
	s := httptest.NewUnstartedServer(h)
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	defer s.Close()
	p := &spec.Probe{Kind: spec.ProbeGRPC, Port: portOf(t, s.URL), GRPCService: "shop"}
	for _, c := range []struct {
		health
		want string
	}{
		{health{"0", "00000000020801", false}, ""},
		{health{"0", "00000000020802", false}, " answers NOT_SERVING"},
		{health{"0", "00000000020803", false}, " answers SERVICE_UNKNOWN"},
		{health{"0", "0000000000", false}, " answers UNKNOWN"},
		{health{"0", "000000000208ff01", false}, " answers what is no health status"},
		{health{"0", "0000000003089a05", false}, " answers 666"},
		{health{"0", "01000000020801", false}, " answers what is no health status"},
		{health{"0", "", false}, " answers what is no health status"},
		{health{"0", "00000000020a01", false}, " answers what is no health status"},
		{health{"5", "", true}, " does not know the service"},
		{health{"12", "", true}, " has no health service"},
		{health{"2", "", false}, ` answers with gRPC status "2"`},
		{health{"0", strings.Repeat("00", 1<<20), false}, " answers what is no health status"},
	} {
		*h = c.health
		if ans := ask(t, p); ans.problem != c.want {
			t.Errorf("%.40s: %q, want %q", c.message, ans.problem, c.want)
		}
	}
	p.GRPCService = "other"
	if ans := ask(t, p); ans.problem != " answers 418, and not as a gRPC service" {
		t.Errorf("%q", ans.problem)
	}
}

func TestProbeAddr_OfHostNetworkAndSharedNetwork(t *testing.T) {
	b := newBench(t)
	own := []store.Endpoint{
		{Network: "back", IPv4: netip.MustParseAddr("10.0.1.2")},
		{Network: "front", IPv4: netip.MustParseAddr("10.0.2.2"), Default: true},
	}
	six := []store.Endpoint{{Network: "six", IPv6: netip.MustParseAddr("fd00::2")}}
	err := b.w.commit(func(c *change) error {
		c.putTask(store.Task{ID: "parent", Endpoints: own})
		c.putTask(store.Task{ID: "host", Spec: spec.Service{NetworkMode: "host"}})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		task store.Task
		want string
	}{
		{"its default route", store.Task{Endpoints: own}, "10.0.2.2"},
		{"only IPv6", store.Task{Endpoints: six}, "fd00::2"},
		{"of another task", store.Task{Parent: "parent"}, "10.0.2.2"},
		{"of a task with the host's", store.Task{Parent: "host"}, "127.0.0.1"},
		{"of a task that is gone", store.Task{Parent: "gone"}, "invalid IP"},
		{"the host's", store.Task{Spec: spec.Service{NetworkMode: "host"}}, "127.0.0.1"},
		{"none", store.Task{}, "invalid IP"},
	} {
		got, err := b.probeAddr(&c.task)
		if got.String() != c.want || (err == nil) != got.IsValid() {
			t.Errorf("%s: %s, %v", c.name, got, err)
		}
	}
}
