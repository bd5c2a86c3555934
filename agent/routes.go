package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"berth/api"
)

// reply wraps a JSON answer.
type reply[T any] struct{ Body T }

func init() {
	// What huma itself refuses (a body that is no JSON, a missing field) looks
	// like every other error of the API.
	huma.NewError = func(status int, message string, errs ...error) huma.StatusError {
		parts := []string{message}
		for _, e := range errs {
			var detail *huma.ErrorDetail
			switch {
			case errors.As(e, &detail): // its value may be the body, with secrets in it
				parts = append(parts, detail.Message)
			case e != nil:
				parts = append(parts, e.Error())
			}
		}
		return &api.Error{Status: status, Title: http.StatusText(status), Code: api.CodeInvalid, Detail: strings.Join(parts, ": ")}
	}
}

// op describes a route. Bodies are not checked field by field beyond their
// types: the agent's own checks say more.
func op(method, path, summary string) huma.Operation {
	return huma.Operation{
		OperationID: method + strings.NewReplacer("/", "-", "{", "", "}", "").Replace(path),
		Method:      method, Path: path, Summary: summary, MaxBodyBytes: maxBody, SkipValidateBody: true,
	}
}

// StackPath is the path of a request about a stack. It is exported for huma,
// which fills embedded fields only then.
type StackPath struct {
	Stack string `path:"stack"`
}

// routes registers everything that api/doc.go lists.
func (a *Agent) routes(h huma.API, mux *http.ServeMux) {
	huma.Register(h, op(http.MethodGet, "/v1/info", "Describe the agent"),
		func(context.Context, *struct{}) (*reply[api.Info], error) { return &reply[api.Info]{a.info()}, nil })
	a.stackRoutes(h)
	a.rolloutRoutes(h)
	a.readRoutes(h)
	a.jobRoutes(h)
	a.imageRoutes(h, mux)
	a.registryRoutes(h)
	a.systemRoutes(h)
	a.buildRoutes(h, mux)
	a.resourceRoutes(h)
	a.contentRoutes(h)
	a.taskRoutes(h, mux)
	a.fileRoutes(h, mux)
	a.commitRoutes(h)
}

// plain serves a route that passes huma by, as its body is no JSON, and tells
// OpenAPI of it.
func plain(h huma.API, mux *http.ServeMux, o huma.Operation, answer string, f http.HandlerFunc) {
	for _, name := range strings.Split(o.Path, "/") {
		if strings.HasPrefix(name, "{") {
			o.Parameters = append(o.Parameters, &huma.Param{
				Name: strings.Trim(name, "{}"), In: "path", Required: true, Schema: &huma.Schema{Type: huma.TypeString},
			})
		}
	}
	o.Responses = map[string]*huma.Response{answer: {Description: http.StatusText(http.StatusOK)}}
	if answer == "101" {
		o.Responses[answer].Description = "WebSocket"
	}
	h.OpenAPI().AddOperation(&o)
	mux.HandleFunc(o.Method+" "+o.Path, f)
}

func (a *Agent) stackRoutes(h huma.API) {
	huma.Register(h, op(http.MethodGet, "/v1/stacks", "List stacks"),
		func(context.Context, *struct{}) (*reply[[]api.StackSummary], error) {
			v := a.w.view()
			out := []api.StackSummary{}
			for _, name := range sortedKeys(v.stacks) {
				out = append(out, a.summary(v, v.stacks[name]))
			}
			return &reply[[]api.StackSummary]{out}, nil
		})
	huma.Register(h, op(http.MethodGet, "/v1/stacks/{stack}", "Show a stack"),
		func(_ context.Context, in *StackPath) (*reply[*api.StackStatus], error) {
			st, err := a.stackStatus(in.Stack)
			return &reply[*api.StackStatus]{st}, fail(err)
		})
	huma.Register(h, op(http.MethodPost, "/v1/stacks/{stack}/plan", "Say what apply would do"),
		func(ctx context.Context, in *struct {
			StackPath
			Body api.ApplyRequest
		},
		) (*reply[*api.Plan], error) {
			in.Body.Stack.Name = in.Stack
			p, err := a.plan(ctx, &in.Body)
			return &reply[*api.Plan]{p}, fail(err)
		})
	huma.Register(h, op(http.MethodPost, "/v1/stacks/{stack}/apply", "Make a stack the desired state"),
		func(_ context.Context, in *struct {
			StackPath
			Body api.ApplyRequest
		},
		) (*huma.StreamResponse, error) {
			in.Body.Stack.Name = in.Stack
			return progressed(func(ctx context.Context, report func(api.Progress)) (*api.Done, error) {
				return a.applyAndFollow(ctx, &in.Body, report)
			}), nil
		})
	huma.Register(h, op(http.MethodPost, "/v1/stacks/{stack}/down", "Remove a stack"),
		func(_ context.Context, in *struct {
			StackPath
			Body api.DownRequest
		},
		) (*huma.StreamResponse, error) {
			return progressed(func(ctx context.Context, report func(api.Progress)) (*api.Done, error) {
				return a.down(ctx, in.Stack, &in.Body, report)
			}), nil
		})
	huma.Register(h, op(http.MethodPost, "/v1/stacks/{stack}/run", "Make a one-off task"),
		func(_ context.Context, in *struct {
			StackPath
			Body api.RunRequest
		},
		) (*huma.StreamResponse, error) {
			in.Body.Stack.Name = in.Stack
			return progressed(func(ctx context.Context, report func(api.Progress)) (*api.Done, error) {
				return a.runOneOff(ctx, &in.Body, report)
			}), nil
		})
	huma.Register(h, op(http.MethodPost, "/v1/stacks/{stack}/action", "Start, stop, restart, kill, pause or remove services"),
		func(_ context.Context, in *struct {
			StackPath
			Body api.ActionRequest
		},
		) (*huma.StreamResponse, error) {
			return progressed(func(ctx context.Context, report func(api.Progress)) (*api.Done, error) {
				return a.act(ctx, in.Stack, &in.Body, report)
			}), nil
		})
}

func (a *Agent) applyAndFollow(ctx context.Context, req *api.ApplyRequest, report func(api.Progress)) (*api.Done, error) {
	applied, err := a.apply(ctx, req, report)
	if err != nil {
		return nil, err
	}
	report(api.Progress{Applied: applied})
	if !req.Wait {
		return &api.Done{Outcome: api.OutcomeDone}, nil
	}
	return a.follow(ctx, applied.Stack, applied.Revision, req.Services, report)
}

// progressed streams the reports of f, then what it ended with. Reports come
// from several goroutines; what one client is too slow to read, it alone
// waits for.
func progressed(f working) *huma.StreamResponse { return streamed(f.stream()) }

// working is work that reports how far it is.
type working func(ctx context.Context, report func(api.Progress)) (*api.Done, error)

func (f working) stream() streaming {
	return func(ctx context.Context, send func(any) error) error {
		lines := make(chan api.Progress, 64)
		type end struct {
			done *api.Done
			err  error
		}
		ended := make(chan end, 1)
		go func() {
			var done *api.Done
			var err error
			defer func() {
				// net/http guards its own goroutines only.
				if p := recover(); p != nil {
					err = fmt.Errorf("internal error: %v\n%s", p, debug.Stack())
				}
				close(lines)
				ended <- end{done, err}
			}()
			done, err = f(ctx, func(p api.Progress) {
				select {
				case lines <- p:
				case <-ctx.Done():
				}
			})
		}()
		for p := range lines {
			if err := send(p); err != nil {
				go func() { // let f end
					for range lines {
					}
				}()
				return err
			}
		}
		e := <-ended
		if e.err != nil {
			return e.err
		}
		return send(api.Progress{Done: e.done})
	}
}

func (a *Agent) info() api.Info {
	_, runtime := a.containers.Name()
	return api.Info{
		Version: a.cfg.Version, API: 1, Pid: os.Getpid(), StartedAt: a.started, Root: a.cfg.Root, Run: a.cfg.Run,
		Runtime: runtime, Conmon: a.cfg.Conmon, Node: a.node.Hostname, RSS: residentMemory(),
	}
}

// residentMemory of this process in bytes; 0 if it can't be read.
func residentMemory() uint64 {
	data, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(data))
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseUint(fields[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * uint64(os.Getpagesize())
}
