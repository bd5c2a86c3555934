package agent

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"berth/api"
	"berth/spec"
	"berth/store"
)

// Templates are stored as they are written, and filled in for each task: what
// comes of it is only ever in the task's own tmpfs.

// usesLabels is, in File.Uses, what the template of a content may name beside
// other contents.
const usesLabels = "labels"

// noteUses notes in the templates of st which contents they use; read gives
// their texts.
func noteUses(st *spec.Stack, read reader) error {
	for _, kind := range []string{api.KindConfig, api.KindSecret} {
		files := filesOf(st, kind)
		for _, key := range sortedKeys(files) {
			f := files[key]
			if !f.Template {
				continue
			}
			text, err := read(f.Digest)
			if err != nil {
				return placed(st, kind+"s."+key, fmt.Errorf("%s %s: %w", kind, key, err))
			}
			parsed, err := spec.ParseTemplate(text, kind == api.KindSecret)
			if err != nil {
				return placed(st, kind+"s."+key, templateProblem(kind+" "+key, err))
			}
			f.Uses = nil
			for _, u := range parsed.Uses() {
				if u.Kind != "env" {
					f.Uses = append(f.Uses, u.Kind+" "+u.Name)
				}
			}
			if parsed.NamesLabels() {
				f.Uses = append(f.Uses, usesLabels)
			}
			slices.Sort(f.Uses)
			f.Uses = slices.Compact(f.Uses)
			files[key] = f
		}
	}
	return nil
}

func filesOf(st *spec.Stack, kind string) map[string]spec.File {
	if kind == api.KindSecret {
		return st.Secrets
	}
	return st.Configs
}

// templateProblem says what is wrong with the template of a content.
func templateProblem(subject string, err error) error {
	out := &api.Error{Status: http.StatusUnprocessableEntity, Code: api.CodeInvalid, Detail: subject + ": " + err.Error()}
	var te *spec.TemplateError
	if errors.As(err, &te) {
		out.Hint = te.Hint
	}
	return out
}

// contentIdentity is what a change of a content shows by: its digest; of a
// template also those of what it uses, and the labels that it may name.
func contentIdentity(st *spec.Stack, s *spec.Service, kind, source string) string {
	f := filesOf(st, kind)[source]
	if !f.Template || f.Digest == "" {
		return f.Digest
	}
	sum := sha256.New()
	fmt.Fprintf(sum, "%s\n", f.Digest)
	for _, use := range f.Uses {
		kind, name, _ := strings.Cut(use, " ")
		if use == usesLabels {
			for _, k := range sortedKeys(s.DeployLabels) {
				fmt.Fprintf(sum, "label %q %q\n", k, s.DeployLabels[k])
			}
			continue
		}
		m, _ := s.FileNamed(kind, name)
		fmt.Fprintf(sum, "%q %s\n", use, filesOf(st, kind)[m.Source].Digest)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// expand fills d in, if it is a template, for a task of s. An error is a
// *spec.TemplateError or one of read.
func (a *Agent) expand(d *delivery, t *store.Task, s *spec.Service, st *spec.Stack, read reader) error {
	if !d.template {
		return nil
	}
	text, err := read(d.file.Digest)
	if err != nil {
		return err
	}
	kind, _, _ := strings.Cut(d.subject(), " ")
	parsed, err := spec.ParseTemplate(text, kind == api.KindSecret)
	if err != nil {
		return err
	}
	get := func(kind, name string) (string, error) { return templateValue(kind, name, s, st, read) }
	for _, u := range parsed.Uses() { // also what this task does not come to
		if _, err := get(u.Kind, u.Name); err != nil {
			var te *spec.TemplateError
			if errors.As(err, &te) {
				te.Line = u.Line
			}
			return err
		}
	}
	limit := maxConfig
	if kind == api.KindSecret {
		limit = maxSecret
	}
	d.file.Content, err = parsed.Expand(a.templateValues(t, s, st), get, limit)
	return err
}

func (a *Agent) templateValues(t *store.Task, s *spec.Service, st *spec.Stack) spec.TemplateValues {
	var v spec.TemplateValues
	v.Stack.Name = st.Name
	v.Service.ID, v.Service.Name, v.Service.Labels = st.Name+"_"+s.Name, s.Name, s.DeployLabels
	v.Task.ID, v.Task.Name, v.Task.Slot = t.ID, t.Name(), strconv.Itoa(t.Slot)
	v.Node.ID, v.Node.Hostname = a.node.ID, a.node.Hostname
	v.Node.Platform.Architecture, v.Node.Platform.OS = a.node.Arch, a.node.OS
	return v
}

// templateValue gives what {{env}}, {{secret}} and {{config}} stand for: as with
// a shell's $(…), without one newline at its end.
func templateValue(kind, name string, s *spec.Service, st *spec.Stack, read reader) (string, error) {
	if kind == "env" {
		v, ok := s.Environment[name]
		if !ok {
			return "", &spec.TemplateError{Message: fmt.Sprintf("service %s has no variable %q", s.Name, name), Hint: "write it in the service's environment"}
		}
		return v, nil
	}
	m, ok := s.FileNamed(kind, name)
	if !ok {
		return "", &spec.TemplateError{
			Message: fmt.Sprintf("service %s has no %s %q", s.Name, kind, name),
			Hint:    fmt.Sprintf("add it to the service's %ss; with mode: 0 nobody but root reads the file", kind),
		}
	}
	f := filesOf(st, kind)[m.Source]
	if f.Template {
		return "", &spec.TemplateError{
			Message: fmt.Sprintf("%s %q is a template itself", kind, name), Hint: "a template takes only contents that are none",
		}
	}
	content, err := read(f.Digest)
	if err != nil {
		return "", err
	}
	return string(withoutNewline(content)), nil
}

func withoutNewline(content []byte) []byte {
	value, cut := bytes.CutSuffix(content, []byte("\n"))
	if cut {
		value = bytes.TrimSuffix(value, []byte("\r"))
	}
	return value
}
