package cli

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Escape makes text that somebody else wrote safe to print on a line:
// control characters, broken UTF-8 and the characters that reverse the
// direction of writing become their Go escapes. Text without them is returned
// as it is.
func Escape(text string) string {
	if clean(text) {
		return text
	}
	var b strings.Builder
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRuneInString(text[i:])
		escapeRune(&b, r, text[i:i+n])
		i += n
	}
	return b.String()
}

// EscapeLog is Escape for a container's own output on a terminal: tabs stay,
// and so do colours (ESC [ … m), which are reset at the end of the line.
func EscapeLog(text string) string {
	if clean(strings.ReplaceAll(text, "\t", " ")) {
		return text
	}
	var b strings.Builder
	coloured := false
	for i := 0; i < len(text); {
		if n := colourSequence(text[i:]); n > 0 {
			b.WriteString(text[i : i+n])
			coloured = true
			i += n
			continue
		}
		r, n := utf8.DecodeRuneInString(text[i:])
		if r == '\t' {
			b.WriteByte('\t')
		} else {
			escapeRune(&b, r, text[i:i+n])
		}
		i += n
	}
	if coloured {
		b.WriteString(styleReset)
	}
	return b.String()
}

// colourSequence is the length of the SGR sequence that text starts with; 0
// if it starts with none.
func colourSequence(text string) int {
	if !strings.HasPrefix(text, "\x1b[") {
		return 0
	}
	for i := 2; i < len(text); i++ {
		switch c := text[i]; {
		case c == 'm':
			return i + 1
		case c != ';' && c != ':' && (c < '0' || c > '9'):
			return 0
		}
	}
	return 0
}

func clean(text string) bool {
	for _, r := range text {
		if unsafe(r) {
			return false
		}
	}
	return true
}

// unsafe says of r that a terminal acts on it instead of showing it. Bidi
// controls are from Unicode TR36 §2.6.
func unsafe(r rune) bool {
	return r < ' ' || r >= 0x7f && r < 0xa0 || r == utf8.RuneError ||
		r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 || r == 0x2028 || r == 0x2029
}

func escapeRune(b *strings.Builder, r rune, raw string) {
	switch {
	case !unsafe(r), r == utf8.RuneError && len(raw) > 1:
		b.WriteString(raw)
	case r == '\n':
		b.WriteString(`\n`)
	case r == '\r':
		b.WriteString(`\r`)
	case r == '\t':
		b.WriteString(`\t`)
	case r == utf8.RuneError, r < 0x100:
		fmt.Fprintf(b, `\x%02x`, raw[len(raw)-1])
	default:
		fmt.Fprintf(b, `\u%04x`, r)
	}
}
