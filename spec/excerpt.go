package spec

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// excerptWidth caps a shown source line: a minified file must not flood the
// terminal.
const excerptWidth = 160

// excerpt shows line (counting from 1) of lines, the one before it, and a
// marker under width bytes from col on. The marker is always the last line.
//
//	4 |     image: web:v1
//	5 |     prots: ["80:80"]
//	  |     ^^^^^
func excerpt(lines []string, line, col, width int) string {
	if line < 1 || line > len(lines) {
		return ""
	}
	gutter := max(4, len(fmt.Sprint(line))+1)
	var b strings.Builder
	text := lines[line-1]
	// A window keeps the place visible in a very long line.
	from := 0
	if col > excerptWidth {
		from = col - excerptWidth/2
		for from > 0 && !utf8.RuneStart(text[min(from, len(text)-1)]) {
			from--
		}
	}
	before := text[min(from, len(text)):min(max(col-1, from), len(text))]
	marked := text[min(max(col-1, 0), len(text)):min(max(col-1+min(width, 4*excerptWidth), 0), len(text))]
	if line > 1 {
		fmt.Fprintf(&b, "%*d | %s\n", gutter, line-1, clip(lines[line-2], 0))
	}
	fmt.Fprintf(&b, "%*d | %s\n", gutter, line, clip(text, from))

	carets := max(1, utf8.RuneCountInString(printable(marked)))
	indent := strings.Repeat(" ", utf8.RuneCountInString(printable(expandTabs(before))))
	fmt.Fprintf(&b, "%*s | %s%s", gutter, "", indent, strings.Repeat("^", min(carets, excerptWidth/2)))
	return b.String()
}

func clip(s string, from int) string {
	if from >= len(s) {
		from = 0
	}
	s = s[from:]
	if far := 4 * excerptWidth; len(s) > far {
		for !utf8.RuneStart(s[far]) {
			far--
		}
		s = s[:far]
	}
	s = printable(expandTabs(s))
	if utf8.RuneCountInString(s) <= excerptWidth {
		return s
	}
	return string([]rune(s)[:excerptWidth]) + " …"
}

func expandTabs(s string) string { return strings.ReplaceAll(s, "\t", "    ") }

// printable makes text from a file safe to print: control characters (also
// ESC, which starts terminal commands) become visible escapes, invalid UTF-8
// becomes U+FFFD.
func printable(s string) string {
	clean := true
	for _, r := range s {
		if r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0) || r == utf8.RuneError || isBidi(r) {
			clean = false
			break
		}
	}
	if clean {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		switch {
		case r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0):
			fmt.Fprintf(&b, "\\x%02x", r)
		case isBidi(r):
			fmt.Fprintf(&b, "\\u%04x", r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// isBidi reports the characters that reorder text on a screen
// (CVE-2021-42574).
func isBidi(r rune) bool {
	return (r >= 0x202a && r <= 0x202e) || (r >= 0x2066 && r <= 0x2069) || r == 0x200e || r == 0x200f
}
