package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"syscall"

	"github.com/hashicorp/go-multierror"

	"berth/api"
	"berth/images"
	"berth/overlaynet"
	"berth/runtime"
	"berth/runtime/volume"
	"berth/store"
)

var errServerClosed = http.ErrServerClosed

// problem turns any error into what a client is told: one line, with the
// place in the user's file, what to do, and a code.
func problem(err error) *api.Error {
	var many *multierror.Error
	if errors.As(err, &many) && len(many.Errors) > 0 {
		first := *problem(many.Errors[0])
		for _, e := range many.Errors[1:] {
			p := problem(e)
			line := p.Detail
			if p.Position != nil {
				line = p.Position.String() + ": " + line
			}
			first.Detail += "\n" + line
		}
		return &first
	}
	var at *placedError
	if errors.As(err, &at) {
		p := *problem(at.err)
		p.Position = &at.pos
		return &p
	}
	var known *api.Error
	if errors.As(err, &known) {
		return known
	}
	p := &api.Error{Status: http.StatusInternalServerError, Code: api.CodeInternal, Detail: err.Error()}
	for _, k := range []struct {
		is     error
		status int
		code   string
		hint   string
	}{
		{store.ErrNotFound, http.StatusNotFound, api.CodeNotFound, ""},
		{runtime.ErrNotFound, http.StatusNotFound, api.CodeNotFound, ""},
		{volume.ErrNotFound, http.StatusNotFound, api.CodeNotFound, ""},
		{images.ErrNotFound, http.StatusNotFound, api.CodeImageNotFound, ""},
		{images.ErrInUse, http.StatusConflict, api.CodeInUse, ""},
		{images.ErrUnauthorized, http.StatusBadGateway, api.CodeRegistry, "`berth login` to the registry, or check the name"},
		{images.ErrUnreachable, http.StatusBadGateway, api.CodeRegistry, unreachableHint},
		{images.ErrReference, http.StatusUnprocessableEntity, api.CodeInvalid, ""},
		{images.ErrAmbiguous, http.StatusUnprocessableEntity, api.CodeInvalid, "give more of the id"},
		{images.ErrPlatform, http.StatusUnprocessableEntity, api.CodeImageNotFound, ""},
		{images.ErrInvalid, http.StatusUnprocessableEntity, api.CodeInvalid, ""},
		{volume.ErrName, http.StatusUnprocessableEntity, api.CodeInvalid, ""},
		{volume.ErrDiffers, http.StatusConflict, api.CodeConflict, "remove the volume first, or choose another name"},
		{runtime.ErrStart, http.StatusUnprocessableEntity, api.CodeInvalid, ""},
		{runtime.ErrInvalid, http.StatusUnprocessableEntity, api.CodeInvalid, ""},
		{overlaynet.ErrPortInUse, http.StatusConflict, api.CodePortInUse, "publish another port, or end what holds it"},
		{overlaynet.ErrPoolExhausted, http.StatusInsufficientStorage, api.CodePoolExhausted, "remove unused networks (`berth network prune`) or add address_pools to the configuration"},
		{overlaynet.ErrOverlap, http.StatusConflict, api.CodeInvalid, "choose another subnet; a network whose settings change keeps its own until its tasks have moved, so `berth down` first to keep it"},
		{runtime.ErrRuntimeMissing, http.StatusServiceUnavailable, api.CodeRuntimeMissing, "install crun or runc, and conmon; `berth doctor` says what is missing"},
		{runtime.ErrNotRunning, http.StatusConflict, api.CodeConflict, ""},
		{syscall.ENOSPC, http.StatusInsufficientStorage, api.CodeNoSpace, "free some space; `berth image prune` may help"},
	} {
		if errors.Is(err, k.is) {
			p.Status, p.Code, p.Hint = k.status, k.code, k.hint
			return p
		}
	}
	return p
}

// imageError is problem for a pull: what is not known better is the registry's
// doing.
func imageError(err error) error {
	p := problem(err)
	if p.Code == api.CodeInternal {
		p = &api.Error{Status: http.StatusBadGateway, Code: api.CodeRegistry, Detail: err.Error()}
	}
	return p
}

const unreachableHint = "check the network and the registry's name, or name a mirror in the configuration; a local image needs no registry (`berth image load`)"

// encoded is v as JSON.
func encoded(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("encode %T: %v", v, err)) // our own types always encode
	}
	return data
}

func notFound(format string, args ...any) error {
	return &api.Error{Status: http.StatusNotFound, Code: api.CodeNotFound, Detail: fmt.Sprintf(format, args...)}
}

func conflict(hint, format string, args ...any) error {
	return &api.Error{Status: http.StatusConflict, Code: api.CodeConflict, Detail: fmt.Sprintf(format, args...), Hint: hint}
}
