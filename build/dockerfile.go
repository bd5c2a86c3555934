package build

import (
	"fmt"
	"os"
	"strings"
)

// instruction is one instruction of a Dockerfile with the lines that it takes.
type instruction struct {
	text        string // continued lines joined by a space
	first, last int    // from 1
}

// instructions splits a Dockerfile. It need not understand it: escapes other
// than a backslash and here-documents only make the lines less exact.
func instructions(content string) []instruction {
	var out []instruction
	var open *instruction
	n := 0
	for line := range strings.Lines(content) {
		n++
		text := strings.TrimSpace(line)
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		part, more := strings.CutSuffix(text, `\`)
		if open == nil {
			open = &instruction{first: n}
		}
		open.text = strings.TrimSpace(open.text + " " + strings.TrimSpace(part))
		open.last = n
		if !more {
			out = append(out, *open)
			open = nil
		}
	}
	if open != nil {
		out = append(out, *open)
	}
	return out
}

// Bases are the images that the stages of a Dockerfile begin with, as far as
// they are written out, or are arguments with a value.
func Bases(content string, args map[string]string) []string {
	var out []string
	stages := map[string]bool{}
	values := map[string]string{}
	from := false
	for _, in := range instructions(content) {
		words := strings.Fields(in.text)
		switch strings.ToUpper(words[0]) {
		case "ARG":
			for _, w := range words[1:] {
				name, value, _ := strings.Cut(w, "=")
				if given, ok := args[name]; ok {
					value = given
				}
				if !from { // those before the first FROM hold for all of them
					values[name] = strings.Trim(value, `"'`)
				}
			}
		case "FROM":
			from = true
			base, stage := fromOf(words[1:], values)
			if base != "" && base != "scratch" && !stages[base] {
				out = append(out, base)
			}
			stages[stage] = true
		}
	}
	return out
}

// fromOf reads the words behind FROM: the image, and the name of the stage.
func fromOf(words []string, values map[string]string) (base, stage string) {
	for len(words) > 0 && strings.HasPrefix(words[0], "--") {
		words = words[1:]
	}
	if len(words) == 0 {
		return "", ""
	}
	if len(words) == 3 {
		stage = words[2]
	}
	return os.Expand(words[0], func(name string) string {
		name, otherwise, _ := strings.Cut(name, ":-")
		if v := values[name]; v != "" {
			return v
		}
		return otherwise
	}), stage
}

// excerpt is the place of the instruction text in a Dockerfile with the lines
// around it; "" if it is not there as it stands.
func excerpt(content, text string) (at int, lines string) {
	same := func(s string) string { return strings.Join(strings.Fields(s), " ") }
	for _, in := range instructions(content) {
		if same(in.text) != same(text) {
			continue
		}
		all := strings.Split(content, "\n")
		var b strings.Builder
		for n := max(1, in.first-2); n <= min(len(all), in.last+2); n++ {
			mark := "   "
			if n >= in.first && n <= in.last {
				mark = ">>>"
			}
			fmt.Fprintf(&b, "%4d | %s %s\n", n, mark, strings.TrimRight(all[n-1], "\r"))
		}
		return in.first, b.String()
	}
	return 0, ""
}
