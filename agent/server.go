package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/user"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"golang.org/x/sys/unix"

	"berth/api"
)

// Bounds of a request.
const (
	headerTimeout = 5 * time.Second
	maxHeader     = 64 << 10
	maxBody       = 32 << 20 // a stack with its configs and secrets
)

// listen opens the API socket. A socket that nobody listens on any more is
// replaced: the lock on the root says that it is ours.
func (a *Agent) listen() (net.Listener, error) {
	path := Socket(a.cfg.Run)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("replace the API socket: %w", err)
	}
	old := unix.Umask(0o177)
	l, err := net.Listen("unix", path)
	unix.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("open the API socket: %w", err)
	}
	gid := 0
	if a.cfg.Group != "" {
		g, err := user.LookupGroup(a.cfg.Group)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("group of the API socket: %w", err), l.Close())
		}
		gid, _ = strconv.Atoi(g.Gid)
	}
	if err := errors.Join(os.Chown(path, 0, gid), os.Chmod(path, 0o660)); err != nil {
		return nil, errors.Join(fmt.Errorf("set the owner of the API socket: %w", err), l.Close())
	}
	return &peerListener{UnixListener: l.(*net.UnixListener), gid: uint32(gid)}, nil
}

// peerListener accepts only peers who may use the API, whatever happened to
// the mode of the socket: root, the agent's own user, members of its group.
type peerListener struct {
	*net.UnixListener
	gid uint32
}

// Accept waits for the next peer who may.
func (l *peerListener) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		cred, err := peer(c)
		if err == nil && l.allowed(cred) {
			return &peerConn{UnixConn: c, cred: cred}, nil
		}
		c.Close()
	}
}

func (l *peerListener) allowed(c *unix.Ucred) bool {
	if c.Uid == 0 || int(c.Uid) == os.Geteuid() {
		return true
	}
	if l.gid == 0 {
		return false
	}
	if c.Gid == l.gid {
		return true
	}
	u, err := user.LookupId(strconv.Itoa(int(c.Uid)))
	if err != nil {
		return false
	}
	groups, _ := u.GroupIds()
	for _, g := range groups {
		if g == strconv.Itoa(int(l.gid)) {
			return true
		}
	}
	return false
}

type peerConn struct {
	*net.UnixConn
	cred *unix.Ucred
}

func peer(c *net.UnixConn) (*unix.Ucred, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) { cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	return cred, errors.Join(err, credErr)
}

// server is the HTTP server of the API.
func (a *Agent) server() *http.Server {
	mux := http.NewServeMux()
	config := huma.DefaultConfig("Berth", "1")
	config.Info.Description = "The agent's API, on a unix socket. Streams are one JSON object a line."
	config.DocsPath = ""
	config.SchemasPath = "/schemas"
	config.CreateHooks = nil // no $schema links in answers
	config.Components.Schemas = huma.NewMapRegistry("#/components/schemas/", schemaName)
	h := humago.New(mux, config)
	a.routes(h, mux)
	for _, s := range config.Components.Schemas.Map() {
		a.cfg.Redact.Name(sortedKeys(s.Properties)...)
	}
	return &http.Server{
		Handler: a.redacting(mux), ErrorLog: slog.NewLogLogger(a.log.Handler(), slog.LevelError), ReadHeaderTimeout: headerTimeout, MaxHeaderBytes: maxHeader,
		ConnContext: func(ctx context.Context, _ net.Conn) context.Context { return ctx },
	}
}

// schemaName tells types of one name apart by their package: Service of the
// desired state is SpecService.
func schemaName(t reflect.Type, hint string) string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	name := huma.DefaultSchemaNamer(t, hint)
	if strings.HasSuffix(t.PkgPath(), "/spec") {
		return "Spec" + name
	}
	return name
}

// fail makes huma send our own error body.
func fail(err error) error {
	if err == nil {
		return nil
	}
	return problem(err)
}

// stream writes one JSON object a line and flushes each.
type stream struct {
	w *bufio.Writer
	f http.Flusher
}

// streaming writes an answer of many lines.
type streaming func(ctx context.Context, send func(any) error) error

// streamed answers with the lines that f writes. An error of f is the last
// line: the status has been sent by then.
func streamed(f streaming) *huma.StreamResponse {
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		hc.SetHeader("Content-Type", ndjson)
		f.write(hc.Context(), hc.BodyWriter())
	}}
}

const ndjson = "application/x-ndjson"

func (f streaming) write(ctx context.Context, w io.Writer) {
	s := &stream{w: bufio.NewWriter(w)}
	s.f, _ = w.(http.Flusher)
	if err := f(ctx, s.send); err != nil && ctx.Err() == nil {
		// The client may be gone: then nobody is left to tell.
		_ = s.send(struct {
			Error *api.Error `json:"error"`
		}{problem(err)})
	}
}

// refuse answers a request outside huma with an error.
func refuse(w http.ResponseWriter, err error) {
	p := problem(err)
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // nobody is left to tell
}

func (s *stream) send(v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if _, err := s.w.Write(append(data, '\n')); err != nil {
		return err
	}
	if err := s.w.Flush(); err != nil {
		return err
	}
	if s.f != nil {
		s.f.Flush()
	}
	return nil
}

// list splits a query value such as "web,db".
func list(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' })
}
