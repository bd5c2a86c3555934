package agent

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"github.com/coder/websocket"
	"github.com/danielgtaylor/huma/v2"

	"berth/api"
	"berth/runtime"
	"berth/store"
)

// TaskPath is the path of a request about a task.
type TaskPath struct {
	Task string `path:"task"`
}

// findTask finds a task by id, by a unique prefix of it, or by its name
// (then the newest).
func (a *Agent) findTask(s string) (*store.Task, error) {
	var found *store.Task
	for _, t := range a.w.view().tasks {
		switch {
		case t.ID == s:
			return t, nil
		case t.Name() == s && t.State != store.StateRemoved:
			found = t
		case len(s) >= 4 && strings.HasPrefix(t.ID, s):
			if found != nil && found.ID != t.ID {
				return nil, invalid("%s is the beginning of more than one task's id", s)
			}
			found = t
		}
	}
	if found == nil {
		return nil, notFound("no task %s", s)
	}
	return found, nil
}

func (a *Agent) taskRoutes(h huma.API, mux *http.ServeMux) {
	huma.Register(h, op(http.MethodGet, "/v1/tasks/{task}", "Show a task"),
		func(_ context.Context, in *TaskPath) (*reply[api.Task], error) {
			t, err := a.findTask(in.Task)
			if err != nil {
				return nil, fail(err)
			}
			return &reply[api.Task]{a.apiTask(a.w.view(), t)}, nil
		})
	huma.Register(h, op(http.MethodGet, "/v1/tasks/{task}/inspect", "Show everything about a task"),
		func(ctx context.Context, in *TaskPath) (*reply[api.TaskInspect], error) {
			t, err := a.findTask(in.Task)
			if err != nil {
				return nil, fail(err)
			}
			return &reply[api.TaskInspect]{a.inspect(ctx, t)}, nil
		})
	huma.Register(h, op(http.MethodGet, "/v1/tasks/{task}/wait", "Wait for the end of a task"),
		func(ctx context.Context, in *TaskPath) (*reply[api.Task], error) {
			t, err := a.findTask(in.Task)
			if err == nil {
				t, err = a.awaitEnd(ctx, t)
			}
			if err != nil {
				return nil, fail(err)
			}
			return &reply[api.Task]{a.apiTask(a.w.view(), t)}, nil
		})
	plain(h, mux, op(http.MethodGet, "/v1/tasks/{task}/exec", "Run a command in a task"), "101", a.interactive(a.serveExec))
	plain(h, mux, op(http.MethodGet, "/v1/tasks/{task}/attach", "Attach to a task"), "101", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("start") == "true" {
			a.startInteractive(w, r)
			return
		}
		a.interactive(a.serveAttach)(w, r)
	})
}

func (a *Agent) inspect(ctx context.Context, t *store.Task) api.TaskInspect {
	out := api.TaskInspect{
		Task: a.apiTask(a.w.view(), t), Service: t.Spec, Probes: a.probes.all(t.ID), LogPath: a.containers.LogPath(t.ID),
		Bundle: a.taskRun(t.ID), SpecHash: t.Key, CgroupPath: filepath.Join(a.cfg.CgroupParent, t.ID),
	}
	if st, err := a.containers.Status(ctx, t.ID); err == nil {
		out.Pid = st.Pid
	}
	return out
}

// interactive upgrades to a WebSocket and reports how f ended as its last
// message.
func (a *Agent) interactive(f func(ctx context.Context, c *websocket.Conn, t *store.Task) (int, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		t, err := a.findTask(r.PathValue("task"))
		if err == nil && t.State != store.StateRunning {
			err = &api.Error{Status: http.StatusConflict, Code: api.CodeConflict, Detail: t.Name() + " is not running"}
		}
		if err != nil {
			refuse(w, err)
			return
		}
		a.upgrade(w, r, func(ctx context.Context, c *websocket.Conn) (int, error) { return f(ctx, c, t) })
	}
}

// upgrade makes a WebSocket of the request, and how f ended its last message.
func (a *Agent) upgrade(w http.ResponseWriter, r *http.Request, f func(ctx context.Context, c *websocket.Conn) (int, error)) {
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return // it has answered
	}
	defer c.CloseNow() //nolint:errcheck // the second close of two
	c.SetReadLimit(1 << 20)
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	code, err := f(ctx, c)
	if err != nil {
		a.frame(ctx, c, api.ChannelError, problem(err))
	} else {
		a.frame(ctx, c, api.ChannelExit, map[string]int{"exit_code": code})
	}
	_ = c.Close(websocket.StatusNormalClosure, "") // the peer may be gone
}

// frame sends a JSON message; a peer that is gone learns nothing.
func (a *Agent) frame(ctx context.Context, c *websocket.Conn, channel byte, v any) {
	data, err := json.Marshal(v)
	if err == nil {
		_ = c.Write(ctx, websocket.MessageBinary, append([]byte{channel}, a.cfg.Redact.JSON(data)...))
	}
}

// channelWriter sends what is written to it on one channel.
type channelWriter struct {
	ctx     context.Context
	c       *websocket.Conn
	channel byte
}

// Write sends p as one message.
func (w *channelWriter) Write(p []byte) (int, error) {
	if err := w.c.Write(w.ctx, websocket.MessageBinary, append([]byte{w.channel}, p...)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// input is what the client sends: stdin as a pipe, the rest as channels.
type input struct {
	stdin  *io.PipeReader
	pipe   *io.PipeWriter
	resize chan runtime.WindowSize
	signal chan string
}

// readInput reads the client's messages until the connection ends, and then
// cancels the session. ctx must outlive the session's last answer: a cancelled
// read closes the connection.
func readInput(ctx context.Context, cancel context.CancelFunc, c *websocket.Conn) *input {
	r, w := io.Pipe()
	in := &input{stdin: r, pipe: w, resize: make(chan runtime.WindowSize, 4), signal: make(chan string, 4)}
	go func() {
		defer cancel()
		defer w.Close()
		for {
			_, msg, err := c.Read(ctx)
			if err != nil {
				return
			}
			if len(msg) > 0 && !in.take(msg[0], msg[1:]) {
				return
			}
		}
	}()
	return in
}

// resized hands a size on without waiting: of those that nobody has read, the
// oldest goes.
func (in *input) resized(size runtime.WindowSize) {
	for {
		select {
		case in.resize <- size:
			return
		default:
		}
		select {
		case <-in.resize:
		default:
		}
	}
}

// take hands one message on; false ends the session. What it can't read it
// leaves out: the session goes on.
func (in *input) take(channel byte, data []byte) bool {
	switch channel {
	case api.ChannelStdin:
		if len(data) == 0 {
			in.pipe.Close()
			return true
		}
		_, err := in.pipe.Write(data)
		return err == nil || errors.Is(err, io.ErrClosedPipe)
	case api.ChannelResize:
		var size runtime.WindowSize
		if json.Unmarshal(data, &size) == nil {
			in.resized(size)
		}
	case api.ChannelSignaled:
		var s struct {
			Signal string `json:"signal"`
		}
		if json.Unmarshal(data, &s) == nil {
			select {
			case in.signal <- s.Signal:
			default: // one is enough
			}
		}
	}
	return true
}

func (a *Agent) serveExec(ctx context.Context, c *websocket.Conn, t *store.Task) (int, error) {
	_, first, err := c.Read(ctx)
	if err != nil {
		return 0, err
	}
	var req api.ExecRequest
	if err := json.Unmarshal(first, &req); err != nil {
		return 0, invalid("exec request: %v", err)
	}
	if len(req.Args) == 0 {
		return 0, invalid("exec needs a command")
	}
	e := runtime.Exec{
		Args: req.Args, Env: req.Env, User: req.User, WorkingDir: req.WorkingDir, TTY: req.TTY, Privileged: req.Privileged,
	}
	a.events.task(t, "exec_start", strings.Join(req.Args, " "))
	if req.Detach {
		go func() {
			if _, err := a.containers.Exec(context.WithoutCancel(ctx), t.ID, e); err != nil {
				a.log.Warn("detached exec", "task", t.Name(), "err", err)
			}
		}()
		return 0, nil
	}
	running, cancel := context.WithCancel(ctx)
	defer cancel()
	in := readInput(ctx, cancel, c)
	defer in.stdin.Close()
	go func() { // without a terminal, Ctrl-C comes as a signal and ends it
		select {
		case <-in.signal:
			cancel()
		case <-running.Done():
		}
	}()
	if req.Stdin {
		e.Stdin = in.stdin
	} else {
		in.stdin.Close() // what comes anyway must not hold up a signal behind it
	}
	e.Stdout = &channelWriter{ctx, c, api.ChannelStdout}
	e.Stderr = &channelWriter{ctx, c, api.ChannelStderr}
	if req.TTY {
		e.Resize = in.resize
		if req.Rows > 0 {
			in.resize <- runtime.WindowSize{Rows: req.Rows, Cols: req.Cols}
		}
	}
	code, err := a.containers.Exec(running, t.ID, e)
	if err != nil {
		return 0, notStarted(err)
	}
	return code, nil
}

func (a *Agent) serveAttach(ctx context.Context, c *websocket.Conn, t *store.Task) (int, error) {
	if err := a.attach(ctx, c, t, nil); err != nil {
		return 0, err
	}
	return a.exitCode(ctx, t), nil
}

// attach joins the client to t until its output ends; ready is called when
// none of it can be missed any more.
func (a *Agent) attach(ctx context.Context, c *websocket.Conn, t *store.Task, ready func()) error {
	attached, cancel := context.WithCancel(ctx)
	defer cancel()
	in := readInput(ctx, cancel, c)
	defer in.stdin.Close()
	go func() {
		for {
			select {
			case s := <-in.signal:
				if sig, err := runtime.ParseSignal(s); err == nil {
					_ = a.signal(attached, t, sig) // its effect is seen, or not
				}
			case <-attached.Done():
				return
			}
		}
	}()
	var stdin io.Reader
	if t.Spec.StdinOpen {
		stdin = in.stdin
	} else {
		in.stdin.Close()
	}
	return a.containers.Attach(attached, t.ID, runtime.Streams{
		Stdin: stdin, Stdout: &channelWriter{ctx, c, api.ChannelStdout}, Stderr: &channelWriter{ctx, c, api.ChannelStderr},
		Resize: in.resize, Attached: ready,
	})
}

// exitNote is how long the news of an exit may take after the output ended.
const exitNote = 2 * time.Second

// exitCode waits for the exit of a task whose output has ended; 0 if it goes
// on without it.
func (a *Agent) exitCode(ctx context.Context, t *store.Task) int {
	late := time.NewTimer(exitNote)
	defer late.Stop()
	for {
		_, changed := a.loop.plan(t.Stack)
		cur := a.w.task(t.ID)
		switch {
		case cur == nil:
			return 0
		case !cur.Live():
			return cur.ExitCode
		}
		select {
		case <-changed:
		case <-late.C:
			return 0
		case <-ctx.Done():
			return 0
		}
	}
}
