package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// Error gives what went wrong, preceded by the place in the user's file when
// there is one. The hint is left to whoever prints it.
func (e *Error) Error() string {
	text := e.Detail
	if text == "" {
		text = e.Title
	}
	if text == "" {
		text = fmt.Sprintf("the agent answered %d %s", e.Status, http.StatusText(e.Status))
	}
	if e.Position != nil {
		return e.Position.String() + ": " + text
	}
	return text
}

// HasCode says whether err is, or wraps, an Error with this Code.
func HasCode(err error, code string) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == code
}

// maxProblem bounds how much of a failed answer is read.
const maxProblem = 1 << 20

// problem reads a failed answer. What is not a problem document, such as the
// text of a proxy or of an older agent, becomes the detail of one.
func problem(resp *http.Response) *Error {
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxProblem)) // a short read leaves a shorter detail
	var doc struct {
		Error
		// Errors are the single findings of a request that failed
		// validation (RFC 9457 extension member).
		Errors []struct {
			Message  string `json:"message"`
			Location string `json:"location"`
		} `json:"errors"`
	}
	if err := json.Unmarshal(body, &doc); err != nil {
		return &Error{Status: resp.StatusCode, Detail: strings.TrimSpace(string(body))}
	}
	e := doc.Error
	if e.Status == 0 {
		e.Status = resp.StatusCode
	}
	for _, finding := range doc.Errors {
		e.Detail += fmt.Sprintf("; %s: %s", finding.Location, finding.Message)
	}
	return &e
}
