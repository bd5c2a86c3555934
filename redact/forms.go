package redact

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"strconv"
	"strings"
	"unicode"
)

// forms are the ways in which text may show v.
func forms(v string) []string {
	seen := map[string]bool{}
	var out []string
	add := func(texts ...string) {
		for _, text := range texts {
			if !seen[text] {
				seen[text] = true
				out = append(out, text)
			}
		}
	}
	add(v)
	for _, once := range quoted(v) {
		add(once)
		if len(v) <= maxTwice {
			add(quoted(once)...)
		}
	}
	if strings.ContainsAny(v, "\r\n") {
		n := 0
		for line := range strings.Lines(v) {
			if line = strings.TrimSpace(line); len(line) >= minLine || mixed(line) {
				add(line)
				add(quoted(line)...)
			}
			if n++; n == maxLines {
				break
			}
		}
	}
	if len(v) > maxForms {
		return out
	}
	add(url.QueryEscape(v), url.PathEscape(v), strings.TrimPrefix(url.UserPassword("", v).String(), ":"))
	add(hex.EncodeToString([]byte(v)), strings.ToUpper(hex.EncodeToString([]byte(v))))
	add(numbers(v))
	for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		for shift := range 3 {
			add(aligned(enc, v, shift))
		}
	}
	return out
}

// mixed says that a short line looks like a password rather than a word.
func mixed(line string) bool {
	return strings.ContainsAny(line, "0123456789") && !strings.ContainsAny(line, " \t") &&
		strings.ContainsFunc(line, unicode.IsUpper) && strings.ContainsFunc(line, unicode.IsLower)
}

// numbers is v as %v prints bytes.
func numbers(v string) string {
	out := make([]byte, 0, 4*len(v))
	for _, b := range []byte(v) {
		out = append(strconv.AppendInt(out, int64(b), 10), ' ')
	}
	return strings.TrimSpace(string(out))
}

// quoted are the inner parts of v as a Go and a JSON string.
func quoted(v string) []string {
	var plain bytes.Buffer
	enc := json.NewEncoder(&plain)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v) // a string always encodes
	escaped, _ := json.Marshal(v)
	var out []string
	for _, text := range []string{strconv.Quote(v), strconv.QuoteToASCII(v), strings.TrimSpace(plain.String()), string(escaped)} {
		out = append(out, text[1:len(text)-1])
	}
	return out
}

// aligned is what is the same in the base64 of whatever has v after shift bytes
// (modulo 3): without the characters that its neighbours have a part in.
func aligned(enc *base64.Encoding, v string, shift int) string {
	text := enc.EncodeToString(append(make([]byte, shift), v...))
	from := (8*shift + 5) / 6
	to := 8 * (shift + len(v)) / 6
	return text[from:to]
}
