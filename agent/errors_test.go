package agent

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/hashicorp/go-multierror"

	"berth/api"
	"berth/images"
	"berth/overlaynet"
	"berth/runtime"
	"berth/runtime/volume"
	"berth/spec"
	"berth/store"
)

func TestProblem_EveryKnownErrorHasAStatusACodeAndAHint(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
		code   string
		hint   string
	}{
		{store.ErrNotFound, 404, api.CodeNotFound, ""},
		{runtime.ErrNotFound, 404, api.CodeNotFound, ""},
		{volume.ErrNotFound, 404, api.CodeNotFound, ""},
		{volume.ErrName, 422, api.CodeInvalid, ""},
		{volume.ErrDiffers, 409, api.CodeConflict, "another name"},
		{images.ErrNotFound, 404, api.CodeImageNotFound, ""},
		{images.ErrInUse, 409, api.CodeInUse, ""},
		{images.ErrUnauthorized, 502, api.CodeRegistry, "berth login"},
		{images.ErrUnreachable, 502, api.CodeRegistry, "berth image load"},
		{images.ErrReference, 422, api.CodeInvalid, ""},
		{images.ErrAmbiguous, 422, api.CodeInvalid, "more of the id"},
		{overlaynet.ErrPortInUse, 409, api.CodePortInUse, "another port"},
		{overlaynet.ErrPoolExhausted, 507, api.CodePoolExhausted, "address_pools"},
		{overlaynet.ErrOverlap, 409, api.CodeInvalid, "another subnet"},
		{runtime.ErrRuntimeMissing, 503, api.CodeRuntimeMissing, "berth doctor"},
		{runtime.ErrNotRunning, 409, api.CodeConflict, ""},
		{&runtime.StartError{Command: "/x"}, 422, api.CodeInvalid, ""},
		{syscall.ENOSPC, 507, api.CodeNoSpace, "berth image prune"},
		{errDisk, 500, api.CodeInternal, ""},
		{invalid("no %s", "good"), 422, api.CodeInvalid, ""},
		{notFound("no stack x"), 404, api.CodeNotFound, ""},
	} {
		err := fmt.Errorf("while testing: %w", c.err)
		p := problem(err)
		if p.Status != c.status || p.Code != c.code || !strings.Contains(p.Hint, c.hint) || c.hint == "" && p.Hint != "" {
			t.Errorf("%v: %d %s %q", c.err, p.Status, p.Code, p.Hint)
		}
		if http.StatusText(p.Status) == "" || p.Detail == "" || strings.Contains(p.Detail, "\n") {
			t.Errorf("%v: %+v", c.err, p)
		}
	}
}

func TestProblem_APlace_IsKept_ThroughWrapping(t *testing.T) {
	st := &spec.Stack{Positions: map[string]spec.Position{"services.web": {File: "a.yaml", Line: 3, Col: 1}}}
	err := fmt.Errorf("apply: %w", placed(st, "services.web.ports.0", fmt.Errorf("x: %w", overlaynet.ErrPortInUse)))
	p := problem(err)
	if p.Position == nil || p.Position.Line != 3 || p.Code != api.CodePortInUse {
		t.Errorf("%+v", p)
	}
	if p := problem(placed(st, "networks.other", errDisk)); p.Position != nil {
		t.Errorf("a place out of nothing: %v", p.Position)
	}
}

func TestProblem_Several_AreLinesOfOne_WithTheFirstOnesCode(t *testing.T) {
	st := &spec.Stack{Positions: map[string]spec.Position{"a": {File: "f", Line: 1, Col: 1}, "b": {File: "f", Line: 2, Col: 1}}}
	var errs *multierror.Error
	errs = multierror.Append(errs, placed(st, "a", images.ErrNotFound), placed(st, "b", invalid("second")), errors.New("third"))
	p := problem(errs.ErrorOrNil())
	if p.Code != api.CodeImageNotFound || p.Position.Line != 1 || p.Detail != "image not found\nf:2:1: second\nthird" {
		t.Errorf("%+v", p)
	}
}

func TestImageError_WhatIsNotKnownBetter_IsTheRegistry(t *testing.T) {
	if p := problem(imageError(errors.New("EOF"))); p.Code != api.CodeRegistry || p.Status != http.StatusBadGateway {
		t.Errorf("%+v", p)
	}
	if p := problem(imageError(syscall.ENOSPC)); p.Code != api.CodeNoSpace {
		t.Errorf("%+v", p)
	}
}
