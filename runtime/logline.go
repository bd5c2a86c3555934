package runtime

import (
	"bytes"
	"errors"
	"time"
)

// errLogLine: a line of a log file that is not in conmon's form.
var errLogLine = errors.New("malformed log line")

// parseLogLine reads a line of the k8s-file form,
//
//	2026-11-23T14:56:11.364852880+00:00 stdout F text
//
// where P instead of F says that the text goes on in the next line.
func parseLogLine(b []byte) (LogLine, error) {
	b = bytes.TrimSuffix(b, []byte("\n"))
	stamp, rest, ok1 := bytes.Cut(b, []byte(" "))
	stream, rest, ok2 := bytes.Cut(rest, []byte(" "))
	tag, text, ok3 := bytes.Cut(rest, []byte(" "))
	if !ok1 || !ok2 {
		return LogLine{}, errLogLine
	}
	if !ok3 && len(tag) != 1 { // an empty text may lack its space
		return LogLine{}, errLogLine
	}
	l := LogLine{Text: string(text)}
	switch string(tag) {
	case "F":
	case "P":
		l.Partial = true
	default:
		return LogLine{}, errLogLine
	}
	switch string(stream) {
	case "stdout", "stderr":
		l.Stream = string(stream)
	default:
		return LogLine{}, errLogLine
	}
	var err error
	if l.Time, err = time.Parse(time.RFC3339Nano, string(stamp)); err != nil {
		return LogLine{}, errLogLine
	}
	return l, nil
}

// logTag finds F or P without reading the rest of a line, 0 if there is none.
func logTag(line []byte) byte {
	_, rest, ok := bytes.Cut(line, []byte(" "))
	if !ok {
		return 0
	}
	_, rest, ok = bytes.Cut(rest, []byte(" "))
	if !ok || len(rest) == 0 || len(rest) > 1 && rest[1] != ' ' && rest[1] != '\n' {
		return 0
	}
	if rest[0] != 'F' && rest[0] != 'P' {
		return 0
	}
	return rest[0]
}

// JoinPartial returns a function for Logs that puts the parts of a line
// together again, each stream for itself, up to limit bytes a line; then the
// line is passed on as Partial. Call flush at the end for what had no newline.
func JoinPartial(limit int, f func(LogLine) error) (each func(LogLine) error, flush func() error) {
	open := map[string]*LogLine{}
	each = func(l LogLine) error {
		o := open[l.Stream]
		if o == nil {
			if !l.Partial {
				return f(l)
			}
			open[l.Stream] = &l
			return nil
		}
		o.Text += l.Text
		o.Partial = l.Partial
		if l.Partial && len(o.Text) < limit {
			return nil
		}
		delete(open, l.Stream)
		return f(*o)
	}
	flush = func() error {
		for _, s := range []string{"stdout", "stderr"} {
			if o := open[s]; o != nil {
				delete(open, s)
				if err := f(*o); err != nil {
					return err
				}
			}
		}
		return nil
	}
	return each, flush
}
