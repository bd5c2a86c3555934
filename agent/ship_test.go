package agent

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"berth/runtime"
	"berth/spec"
	"berth/store"
)

var shippedLine = runtime.LogLine{Time: time.Date(2026, 11, 3, 4, 5, 6, 789e6, time.UTC), Stream: "stderr", Text: "boom"}

// received sends one line with the options and gives what came in.
func received(t *testing.T, options map[string]string, accept func() string) string {
	t.Helper()
	s, err := openSyslog(options, "web/1")
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 1)
	go func() { got <- accept() }()
	if err := s.send(t.Context(), shippedLine); err != nil {
		t.Fatal(err)
	}
	s.close()
	return <-got
}

func TestSyslog_SpeaksItsFormats_OverUDP(t *testing.T) {
	l, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	host, _ := os.Hostname()
	h := regexp.QuoteMeta(host)
	for format, want := range map[string]string{
		"":             `^<27>Nov  3 \d\d:\d\d:06 web/1\[\d+\]: boom$`,
		"rfc3164":      `^<27>Nov  3 \d\d:\d\d:06 ` + h + ` web/1\[\d+\]: boom$`,
		"rfc5424":      `^<27>1 2026-11-03T\d\d:\d\d:06\S+ ` + h + ` web/1 \d+ web/1 - boom$`,
		"rfc5424micro": `^<27>1 2026-11-03T\d\d:\d\d:06\.789000\S+ ` + h + ` web/1 \d+ web/1 - boom$`,
	} {
		got := received(t, map[string]string{"syslog-address": "udp://" + l.LocalAddr().String(), "syslog-format": format}, func() string {
			buf := make([]byte, 4096)
			n, _, _ := l.ReadFrom(buf)
			return string(buf[:n])
		})
		if !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("format %q: %q, want %s", format, got, want)
		}
	}
}

// acceptAll reads what one connection brings.
func acceptAll(l net.Listener) func() string {
	return func() string {
		c, err := l.Accept()
		if err != nil {
			return err.Error()
		}
		defer c.Close()
		data, _ := io.ReadAll(c)
		return string(data)
	}
}

func TestSyslog_EndsAMessageOfAStream(t *testing.T) {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	got := received(t, map[string]string{"syslog-address": "tcp://" + tcp.Addr().String(), "syslog-facility": "local7"}, acceptAll(tcp))
	if !strings.HasPrefix(got, "<187>") || !strings.HasSuffix(got, ": boom\n") {
		t.Errorf("tcp: %q", got)
	}
	path := filepath.Join(t.TempDir(), "stream")
	sock, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer sock.Close()
	if got := received(t, map[string]string{"syslog-address": "unix://" + path}, acceptAll(sock)); !strings.HasSuffix(got, ": boom\n") {
		t.Errorf("unix: %q", got)
	}
}

func TestSyslog_OverTLS_CountsBytes_AndChecksTheCertificate(t *testing.T) {
	pair, ca := certificate(t)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	options := map[string]string{"syslog-address": "tcp+tls://" + l.Addr().String(), "syslog-format": "rfc5424", "syslog-tls-ca-cert": ca}
	accept := acceptAll(l)
	go func() { _, _ = fmt.Fprint(io.Discard, accept()) }()
	s, err := openSyslog(options, "web/1")
	if err != nil {
		t.Fatal(err)
	}
	s.close()
	got := make(chan string, 1)
	go func() { got <- accept() }()
	if s, err = openSyslog(options, "web/1"); err != nil {
		t.Fatal(err)
	}
	if err := s.send(t.Context(), shippedLine); err != nil {
		t.Fatal(err)
	}
	s.close()
	text := <-got
	length, message, _ := strings.Cut(text, " ")
	if fmt.Sprint(len(message)) != length || !strings.HasSuffix(message, "- boom") {
		t.Errorf("%q", text)
	}
	go accept()
	delete(options, "syslog-tls-ca-cert")
	if _, err := openSyslog(options, "web/1"); err == nil {
		t.Error("a certificate that nobody signed was taken")
	}
}

// certificate makes one of 127.0.0.1 that signs itself.
func certificate(t *testing.T) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, path
}

func TestJournal_GetsFields_AndWhatIsTooLargeForADatagramAsAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s, err := openJournal(path, map[string]string{"CONTAINER_NAME": "shop-web-1"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	line := shippedLine
	line.Text = "two\nlines"
	if err := s.send(t.Context(), line); err != nil {
		t.Fatal(err)
	}
	buf, oob := make([]byte, 1<<16), make([]byte, 64)
	n, _, _, _, err := l.ReadMsgUnix(buf, oob)
	want := "MESSAGE\n\x09\x00\x00\x00\x00\x00\x00\x00two\nlines\nPRIORITY=3\nSYSLOG_TIMESTAMP=2026-11-03T04:05:06.789Z\nCONTAINER_NAME=shop-web-1\n"
	if err != nil || string(buf[:n]) != want {
		t.Errorf("%q, %v", buf[:n], err)
	}
	line.Text = strings.Repeat("x", 1<<20)
	if err := s.send(t.Context(), line); err != nil {
		t.Fatal(err)
	}
	_, m, _, _, err := l.ReadMsgUnix(buf, oob)
	if err != nil {
		t.Fatal(err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:m])
	if err != nil || len(messages) != 1 {
		t.Fatalf("%d control messages, %v", len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fds[0]), "entry")
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() < 1<<20 {
		t.Errorf("the file holds %v, %v", info, err)
	}
}

func TestShip_GoesOnWhereTheLastAgentWas_AndWaitsForWhatIsNotThere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "syslog")
	simulate(t, func(b *bench) {
		b.up(stackOf("shop", service("web", "web:1", func(s *spec.Service) {
			s.Logging = spec.Logging{Driver: spec.LogSyslog, Options: map[string]string{"syslog-address": "unixgram://" + path, "tag": "t"}}
		})))
		id := b.id("web/1.1")
		b.containers.write(id, runtime.LogLine{Text: "one"})
		b.pass(time.Minute) // nobody is there, and the task runs on
		b.expectTasks("web/1.1 running published")
		if p := b.ships.read(id); p.Lines != 0 {
			t.Errorf("%+v is sent", p)
		}
		l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		next := func() string {
			buf := make([]byte, 1024)
			_ = l.SetReadDeadline(time.Now().Add(time.Hour))
			n, _ := l.Read(buf)
			_, text, _ := strings.Cut(string(buf[:n]), "]: ")
			return text
		}
		b.pass(time.Minute)
		if got := next(); got != "one" {
			t.Errorf("got %q", got)
		}
		b.containers.write(id, runtime.LogLine{Text: "two"})
		b.pass(2 * time.Second)
		b.crash(func() { b.containers.write(id, runtime.LogLine{Text: "three"}) })
		b.pass(time.Minute)
		if got := next() + next(); got != "twothree" {
			t.Errorf("got %q", got)
		}
		b.containers.end(id, 0, false)
		b.pass(time.Minute)
		if !b.ships.read(id).Done {
			t.Error("the end of the log is not noted")
		}
	})
}

func TestLineQueue_IsBounded(t *testing.T) {
	q := newLineQueue(10, true)
	for _, text := range []string{"12345678", "90", "too much"} {
		if err := q.put(t.Context(), runtime.LogLine{Text: text}); err != nil {
			t.Fatal(err)
		}
	}
	l, dropped, ok := q.take(t.Context())
	if l.Text != "12345678" || dropped != 1 || !ok {
		t.Errorf("%q, %d dropped, %v", l.Text, dropped, ok)
	}
	q = newLineQueue(10, false)
	_ = q.put(t.Context(), runtime.LogLine{Text: strings.Repeat("x", 100)}) // one line always has room
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := q.put(ctx, runtime.LogLine{Text: "y"}); err == nil {
		t.Error("a full queue took a line")
	}
	q.end()
	if _, _, ok := q.take(t.Context()); !ok {
		t.Error("what was in the queue is lost")
	}
	if _, _, ok := q.take(t.Context()); ok {
		t.Error("there is more than was put")
	}
}

func TestJournalFields_AreThoseOfDocker(t *testing.T) {
	simulate(t, func(b *bench) {
		task := &store.Task{ID: "0123456789abcdef", Stack: "shop", Service: "web", Slot: 1, Image: "web:1", Digest: "web:1", Spec: spec.Service{
			Labels: map[string]string{"com.example.team": "blue", "other": "x"}, Environment: map[string]string{"COLOUR": "red", "SHAPE": "round"},
			Logging: spec.Logging{Driver: spec.LogJournald, Options: map[string]string{"labels": "com.example.team", "env-regex": "^COL"}},
		}}
		f := b.ships.journalFields(task, "tag")
		for k, want := range map[string]string{
			"CONTAINER_ID": "0123456789ab", "CONTAINER_NAME": "shop-web-1", "CONTAINER_TAG": "tag", "COM_EXAMPLE_TEAM": "blue", "COLOUR": "red",
			"SHAPE": "", "OTHER": "",
		} {
			if f[k] != want {
				t.Errorf("%s is %q, want %q", k, f[k], want)
			}
		}
	})
}
