package agent

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"

	"github.com/coder/websocket"
	"github.com/danielgtaylor/huma/v2"

	"berth/api"
	"berth/build"
	"berth/images"
)

// openBuilders prepares for builds; what a killed agent left of some goes.
func (a *Agent) openBuilders() (err error) {
	_, runtime := a.containers.Name()
	cfg := build.Config{
		Root: filepath.Join(a.cfg.Root, "build"), Run: filepath.Join(a.cfg.Run, "build"),
		Runtime: runtime, CgroupParent: a.cfg.CgroupParent, Redact: a.cfg.Redact.Add, Mirrors: map[string]build.Mirror{},
	}
	for host, r := range a.cfg.Registries {
		cfg.Mirrors[host] = build.Mirror{Mirrors: r.Mirrors, Insecure: r.Insecure, CA: r.CA}
	}
	a.builders, err = build.Open(cfg)
	return err
}

func (a *Agent) buildRoutes(h huma.API, mux *http.ServeMux) {
	plain(h, mux, op(http.MethodPost, "/v1/build", "Build an image"), "200", func(w http.ResponseWriter, r *http.Request) {
		body := r.Body
		w.Header().Set("Content-Type", ndjson)
		working(func(ctx context.Context, report func(api.Progress)) (*api.Done, error) {
			built, err := a.builders.Build(ctx, body, buildStore{a}, a.sshSocket, func(p build.Progress) {
				report(api.Progress{Build: &p})
			})
			if err != nil {
				return nil, buildError(err)
			}
			if built.Digest != "" {
				for _, name := range built.Names {
					a.events.emit(apiEvent{Type: "image", Action: "build", Name: name})
				}
			}
			report(api.Progress{Built: &built})
			return &api.Done{Outcome: api.OutcomeDone}, nil
		}).stream().write(r.Context(), w)
	})
	plain(h, mux, op(http.MethodGet, "/v1/build/ssh", "Offer an SSH agent to builds"), "101", a.offerSSH)
}

func buildError(err error) error {
	var failed *build.Failure
	switch {
	case errors.Is(err, build.ErrNoBuilder):
		return &api.Error{
			Status: http.StatusUnprocessableEntity, Code: api.CodeInvalid, Detail: err.Error(),
			Hint: "install buildah (apt-get install buildah) or BuildKit (buildkitd and buildctl), or set BUILDKIT_HOST",
		}
	case errors.As(err, &failed):
		return &api.Error{Status: http.StatusUnprocessableEntity, Code: api.CodeInvalid, Detail: failed.Error()}
	case errors.Is(err, images.ErrNotFound):
		return imageError(err)
	}
	return err
}

// buildStore is the image store as builds see it.
type buildStore struct{ a *Agent }

func (s buildStore) Save(ctx context.Context, w io.Writer, refs []string) error {
	return s.a.images.Save(ctx, w, refs)
}

// Keep loads the image and then names it: until then it is nobody's, and the
// names mean what they meant. Nothing is collected between the two.
func (s buildStore) Keep(ctx context.Context, archive io.Reader, names []string) (digest, id string, err error) {
	s.a.contents.RLock()
	defer s.a.contents.RUnlock()
	for _, name := range names {
		if _, err := images.ParseReference(name); err != nil {
			return "", "", err
		}
	}
	loaded, err := s.a.images.Load(ctx, archive, func(images.Progress) {})
	if err != nil {
		return "", "", err
	}
	img := loaded[0]
	for _, name := range names {
		if err := s.a.images.Tag(name, img.Digest); err != nil {
			return "", "", err
		}
	}
	return img.Digest, img.ID, nil
}

// sshSocket is where the SSH agent of a client listens that offered it.
func (a *Agent) sshSocket(name string) (string, error) {
	path := filepath.Join(a.cfg.Run, "build", "ssh-"+name)
	if _, err := os.Lstat(path); err != nil || filepath.Base(path) != "ssh-"+name {
		return "", invalid("the SSH agent that the build wants is not offered any more")
	}
	return path, nil
}

// offerSSH listens on a socket for builders, passes each of their questions to
// the client's SSH agent, one at a time, and its answer back.
func (a *Agent) offerSSH(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return // it has answered
	}
	defer c.CloseNow() //nolint:errcheck // it is over, one way or the other
	name := randomID()
	path := filepath.Join(a.cfg.Run, "build", "ssh-"+name)
	l, err := (&net.ListenConfig{}).Listen(r.Context(), "unix", path)
	if err != nil {
		a.log.Error("listen for builds that want an SSH agent", "err", err)
		return
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	hello, _ := json.Marshal(api.BuildSSH{Socket: name}) // text always encodes
	if c.Write(ctx, websocket.MessageText, hello) != nil {
		return
	}
	answers := make(chan []byte)
	go func() { // the only reader: it also learns that the client has gone
		defer cancel()
		for {
			_, answer, err := c.Read(ctx)
			if err != nil {
				return
			}
			select {
			case answers <- answer:
			case <-ctx.Done():
				return
			}
		}
	}()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	var turn sync.Mutex
	ask := func(question []byte) ([]byte, error) {
		turn.Lock()
		defer turn.Unlock()
		if err := c.Write(ctx, websocket.MessageBinary, question); err != nil {
			return nil, err
		}
		select {
		case answer := <-answers:
			return answer, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	var conns sync.WaitGroup
	defer conns.Wait()
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		conns.Go(func() {
			stop := context.AfterFunc(ctx, func() { conn.Close() })
			defer stop()
			defer conn.Close()
			for {
				question, err := api.ReadSSH(conn)
				if err != nil {
					return
				}
				answer, err := ask(question)
				if err != nil || api.WriteSSH(conn, answer) != nil {
					return
				}
			}
		})
	}
}
