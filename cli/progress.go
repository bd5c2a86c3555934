package cli

import (
	"fmt"
	"io"
	"regexp"
	"time"

	"berth/api"
)

// Progress shows a stream of progress as it comes. Handle and Close are
// called from one goroutine; Close leaves the last state on the screen and
// may be called twice.
type Progress interface {
	Handle(p api.Progress)
	Close()
}

// Modes of the --progress flag.
const (
	ProgressAuto  = "auto"
	ProgressTTY   = "tty"
	ProgressPlain = "plain"
	ProgressJSON  = "json"
	ProgressQuiet = "quiet"
)

// NewProgress shows progress on s: redrawn lines where the screen can do
// that, else a line for each change.
func NewProgress(s Screen, mode string) (Progress, error) {
	switch mode {
	case ProgressAuto, "":
		if s.Live {
			return newLiveProgress(s), nil
		}
		return newPlainProgress(s), nil
	case ProgressTTY:
		return newLiveProgress(s), nil
	case ProgressPlain:
		return newPlainProgress(s), nil
	case ProgressJSON:
		return jsonProgress{s}, nil
	case ProgressQuiet:
		return quietProgress{s}, nil
	}
	return nil, fmt.Errorf("--progress %q: want auto, tty, plain, json or quiet", mode)
}

// title words the head of a rollout.
func title(a api.Applied) string {
	text := fmt.Sprintf("%s: revision %d", Escape(a.Stack), a.Revision)
	if !a.Changed {
		text += ", unchanged"
	}
	return text
}

// plainProgress prints a line when something changes, and nothing twice.
type plainProgress struct {
	screen Screen
	board  board
	said   map[string]string // the last line about a service or an image
	passed map[string]bool   // what was said of services on their way
}

func newPlainProgress(s Screen) *plainProgress {
	return &plainProgress{screen: s, said: map[string]string{}, passed: map[string]bool{}}
}

func (p *plainProgress) Handle(news api.Progress) {
	now := time.Now()
	switch {
	case news.Applied != nil:
		fmt.Fprintln(p.screen, title(*news.Applied))
	case news.Service != nil:
		row := p.board.service(*news.Service, now)
		if row.untouched() {
			return
		}
		if row.settled() {
			text, _ := row.line(now, 0)
			p.say(row.Service, text)
			return
		}
		// Of what comes and goes a log wants to hear once.
		text, _ := row.text()
		same := row.Service + " " + moving.ReplaceAllString(text, "N")
		if !p.passed[same] {
			p.passed[same] = true
			p.say(row.Service, text)
		}
	case news.Pull != nil:
		row := p.board.pull(*news.Pull, now)
		text := "pulling"
		if row.over() {
			text = row.text()
		}
		p.say(row.reference, text)
	case news.Build != nil, news.Built != nil:
		for _, line := range buildLines(news) {
			fmt.Fprintln(p.screen, line)
		}
	case news.Warning != "":
		fmt.Fprintln(p.screen, "warning: "+Escape(news.Warning))
	case news.Message != "":
		fmt.Fprintln(p.screen, Escape(news.Message))
	}
}

// moving are the parts of a reason that change all the time.
var moving = regexp.MustCompile(`\b(?:in )?[0-9.]+ (?:s|min|h|connections?|times)\b|\bnow\b`)

func (p *plainProgress) say(about, text string) {
	if p.said[about] == text {
		return
	}
	p.said[about] = text
	fmt.Fprintf(p.screen, "%s: %s\n", Escape(about), text)
}

func (p *plainProgress) Close() {}

// jsonProgress writes the stream as it came from the agent.
type jsonProgress struct{ w io.Writer }

func (p jsonProgress) Handle(news api.Progress) {
	_ = WriteJSONLine(p.w, news) // a reader that went away does not stop a rollout
}

func (p jsonProgress) Close() {}

// quietProgress prints warnings only.
type quietProgress struct{ w io.Writer }

func (p quietProgress) Handle(news api.Progress) {
	if news.Warning != "" {
		fmt.Fprintln(p.w, "warning: "+Escape(news.Warning))
	}
}

func (p quietProgress) Close() {}
