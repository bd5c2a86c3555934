package cli

import (
	"io"
	"os"

	"golang.org/x/term"
)

// Screen is an output and what it can show.
type Screen struct {
	io.Writer
	// Colour says that ANSI colours may be used.
	Colour bool
	// Live says that lines may be drawn over.
	Live bool
	// Terminal says that a person looks at a terminal, however plain.
	Terminal bool

	size func() (cols, rows int)
}

// Values of the --ansi flag.
const (
	AnsiAuto   = "auto"
	AnsiNever  = "never"
	AnsiAlways = "always"
)

// NewScreen finds out what w can show. With AnsiAuto that is colours on a
// terminal unless NO_COLOR is set (no-color.org), and redrawn lines on a
// terminal outside of CI; TERM=dumb has neither.
func NewScreen(w io.Writer, ansi string) Screen {
	s := Screen{Writer: w, size: func() (int, int) { return 80, 24 }}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		s.Terminal = true
		s.size = func() (int, int) {
			cols, rows, err := term.GetSize(int(f.Fd()))
			if err != nil || cols == 0 {
				return 80, 24
			}
			return cols, rows
		}
	}
	smart := s.Terminal && os.Getenv("TERM") != "dumb"
	switch ansi {
	case AnsiNever:
	case AnsiAlways:
		s.Colour, s.Live = true, s.Terminal
	default:
		s.Colour = smart && os.Getenv("NO_COLOR") == ""
		s.Live = smart && os.Getenv("CI") == ""
	}
	return s
}

// Size is how many characters fit on the screen.
func (s Screen) Size() (cols, rows int) {
	if s.size == nil {
		return 80, 24
	}
	return s.size()
}

// Style is an ANSI "select graphic rendition" parameter.
type Style string

// Styles. The names say what they are for, not how they look.
const (
	Plain   Style = ""
	Dim     Style = "2"
	Bold    Style = "1"
	Good    Style = "32"
	Bad     Style = "31"
	Caution Style = "33"
	Accent  Style = "36"
)

const styleReset = "\x1b[0m"

// Paint gives text in a style, or as it is on a screen without colours.
func (s Screen) Paint(style Style, text string) string {
	if !s.Colour || style == Plain || text == "" {
		return text
	}
	return "\x1b[" + string(style) + "m" + text + styleReset
}
