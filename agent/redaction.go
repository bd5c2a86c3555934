package agent

import (
	"bytes"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync"

	"berth/api"
	"berth/redact"
	"berth/spec"
	"berth/store"
)

// Redaction: the agent knows the value of every secret that it keeps or was
// sent, and says none of them. What goes out passes through one of three
// places: the log (Config.Log, made by berthd), the answers of the API
// (redacting), the records (world.redact, of what they say in words).

// problemType is the content type of an api.Error.
var problemType = new(api.Error).ContentType("")

// maxRedacted is the number of values above which those are forgotten that are
// no longer kept: some 10 MB.
const maxRedacted = 10_000

// verbatim are the routes whose answers are a user's own data: what containers
// log, what a config contains.
var verbatim = []string{
	http.MethodGet + " /v1/stacks/{stack}/logs",
	http.MethodGet + " /v1/contents/{kind}/{name}",
	http.MethodPost + " /v1/contents/{kind}",
}

// redacting takes values out of what h answers. A tar and what goes through a
// WebSocket is data of containers; all else is text.
func (a *Agent) redacting(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out := &redacted{ResponseWriter: w, r: r, set: a.cfg.Redact}
		defer out.end()
		h.ServeHTTP(out, r)
	})
}

// redacted redacts whole lines: each answer is JSON, in one line or in many.
type redacted struct {
	http.ResponseWriter
	r    *http.Request
	set  *redact.Set
	rest []byte // of a line whose end is still to come
}

// Unwrap is for http.ResponseController.
func (w *redacted) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Flush sends the lines that are whole.
func (w *redacted) Flush() { _ = http.NewResponseController(w.ResponseWriter).Flush() } // the client may be gone

func (w *redacted) Write(p []byte) (int, error) {
	if w.set == nil || w.verbatim() {
		return w.ResponseWriter.Write(p)
	}
	whole := bytes.LastIndexByte(p, '\n') + 1
	lines := p[:whole]
	if len(w.rest) > 0 && whole > 0 {
		lines = append(w.rest, lines...)
		w.rest = nil
	}
	w.rest = append(w.rest, p[whole:]...)
	return len(p), w.send(lines)
}

// verbatim says that it is a user's own data. What Berth says of a failure never is.
func (w *redacted) verbatim() bool {
	kind := w.Header().Get("Content-Type")
	return kind == "application/x-tar" || kind != problemType && slices.Contains(verbatim, w.r.Pattern)
}

func (w *redacted) send(text []byte) error {
	if len(text) == 0 {
		return nil
	}
	if strings.Contains(w.Header().Get("Content-Type"), "json") {
		text = w.set.JSON(text)
	} else {
		text = w.set.Bytes(text)
	}
	_, err := w.ResponseWriter.Write(text)
	return err
}

func (w *redacted) end() { _ = w.send(w.rest) } // the client may be gone

// spawn is wg.Go for what ends the agent, should it panic, with no value said.
func (a *Agent) spawn(wg *sync.WaitGroup, f func()) {
	wg.Go(func() {
		defer a.cfg.Redact.Guard()
		f()
	})
}

// vocabulary are words of the API's answers that programs read: values that are
// one of them are no secrets.
var vocabulary = []string{
	api.CodeNotFound, api.CodeConflict, api.CodePortInUse, api.CodeImageNotFound, api.CodeRegistry, api.CodeNoSpace,
	api.CodePoolExhausted, api.CodeRuntimeMissing, api.CodeInternal,
	api.OutcomeNotReady, api.OutcomeRolledBack, api.OutcomeSuperseded,
	api.PhaseStarting, api.PhaseCompleted, api.PhaseStopping, api.TaskRestarting, api.TaskRemoving, api.PlanUnchanged,
	api.RolloutProgressing, api.RolloutComplete, api.RolloutRollingBack, api.RolloutRollbackPaused, api.RunSucceeded,
	unhealthy, string(readinessTest), string(livenessTest),
}

// hidden is p as the client got it.
func (a *Agent) hidden(p *api.Plan) (out api.Plan) {
	if err := json.Unmarshal(a.cfg.Redact.JSON(encoded(p)), &out); err != nil {
		return *p // it is not what was looked at, then
	}
	return out
}

// learnStored tells the redactor what is kept.
func (a *Agent) learnStored() error {
	values, names, err := a.storedSecrets()
	a.cfg.Redact.Name(vocabulary...)
	a.cfg.Redact.Name(names...)
	a.cfg.Redact.Add(values...)
	return err
}

// forgetValues bounds what the redactor knows.
func (a *Agent) forgetValues() error {
	if a.cfg.Redact.Len() < maxRedacted {
		return nil
	}
	values, _, err := a.storedSecrets()
	if err == nil {
		a.cfg.Redact.Reset(values...)
	}
	return err
}

// storedSecrets are the values of all versions of secrets that are kept, and
// the names of what has them. What can't be read any more can't be said either.
func (a *Agent) storedSecrets() (values [][]byte, names []string, err error) {
	digests := map[string]bool{}
	add := func(st *spec.Stack) {
		names = append(names, st.Names()...)
		for _, f := range st.Secrets {
			digests[f.Digest] = true
		}
	}
	for _, t := range a.w.view().tasks {
		if t.OneOff != nil {
			add(&t.OneOff.Stack)
		}
	}
	err = a.db.View(func(tx store.Tx) error {
		err := store.Each(tx, store.Contents, "", func(_ string, c store.Content) error {
			names = append(names, c.Name, c.Stack)
			for _, v := range c.Versions {
				digests[v.Digest] = digests[v.Digest] || c.Kind == api.KindSecret
			}
			return nil
		})
		if err != nil {
			return err
		}
		return store.Each(tx, store.Revisions, "", func(_ string, r store.Revision) error {
			add(&r.Stack)
			return nil
		})
	})
	for _, digest := range sortedKeys(digests) {
		if !digests[digest] {
			continue
		}
		if content, err := a.secrets.Get(digest); err == nil {
			values = append(values, content)
		}
	}
	return values, names, err
}

// learn tells the redactor about a secret that was sent.
func (a *Agent) learn(kind string, content []byte) {
	if kind == api.KindSecret {
		a.cfg.Redact.Add(content)
	}
}

// learnNames tells it the names of a stack, which answers show as they are.
func (a *Agent) learnNames(st *spec.Stack) { a.cfg.Redact.Name(st.Names()...) }
