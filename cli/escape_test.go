package cli

import (
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func TestEscape_WhatMovesTheCursor_IsShownInstead(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"plain text", "plain text"},
		{"größe 漢字 🙂", "größe 漢字 🙂"},
		{"\x1b]0;title\x07", `\x1b]0;title\x07`},
		{"a\x1b[2Jb", `a\x1b[2Jb`},
		{"two\nlines\r\t", `two\nlines\r\t`},
		{"\x7f\u009b31m", `\x7f\x9b31m`},
		{"broken \xff utf8", `broken \xff utf8`},
		{"user\u202egnp.exe", `user\u202egnp.exe`},
		{"replacement \ufffd stays", "replacement \ufffd stays"},
		{"", ""},
	} {
		if got := Escape(c.text); got != c.want {
			t.Errorf("Escape(%q) = %q, want %q", c.text, got, c.want)
		}
	}
}

func TestEscapeLog_ColoursAndTabsStay_TheRestDoesNot(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"\x1b[1;31merror\x1b[0m", "\x1b[1;31merror\x1b[0m\x1b[0m"},
		{"\x1b[38:5:1mx", "\x1b[38:5:1mx\x1b[0m"},
		{"a\tb", "a\tb"},
		{"\x1b[2Jx", `\x1b[2Jx`},
		{"\x1b[31", `\x1b[31`},
		{"\x1b[31;\x1b[2J", `\x1b[31;\x1b[2J`},
		{"50%\r100%", `50%\r100%`},
	} {
		if got := EscapeLog(c.text); got != c.want {
			t.Errorf("EscapeLog(%q) = %q, want %q", c.text, got, c.want)
		}
	}
}

func TestEscape_AnyText_LeavesNothingATerminalActsOn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := string(rapid.SliceOf(rapid.Byte()).Draw(t, "text")) + rapid.String().Draw(t, "runes")
		got := Escape(text)
		if !utf8.ValidString(got) {
			t.Fatalf("Escape(%q) = %q is no UTF-8", text, got)
		}
		for _, r := range got {
			if r != utf8.RuneError && unsafe(r) {
				t.Fatalf("Escape(%q) = %q holds %U", text, got, r)
			}
		}
		if again := Escape(got); again != got && !strings.ContainsRune(got, utf8.RuneError) {
			t.Fatalf("Escape is not idempotent: %q, %q", got, again)
		}
	})
}

func TestEscapeLog_AnyText_HoldsNoSequenceButColours(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		parts := rapid.SliceOf(rapid.SampledFrom([]string{"\x1b", "[", "m", "31", ";", "J", "x", "\x07", "\n", "\x9b"})).Draw(t, "parts")
		got := EscapeLog(strings.Join(parts, ""))
		for i := strings.IndexByte(got, 0x1b); i >= 0; i = strings.IndexByte(got, 0x1b) {
			n := colourSequence(got[i:])
			if n == 0 {
				t.Fatalf("%q holds a sequence at %d that is no colour", got, i)
			}
			got = got[i+n:]
		}
	})
}
