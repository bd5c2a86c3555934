package spec

import (
	"fmt"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// Limits of one YAML file, beside maxFile. A Compose file that a person wrote
// is far below them; one that is above would take the loader minutes and
// gigabytes ("billion laughs").
const (
	maxDepth = 64      // mappings and lists inside each other
	maxNodes = 100_000 // values, with every alias written out
	// maxVariables and maxNesting bound the ${…} of one text: the loader's
	// time grows with the square of both.
	maxVariables = 512
	maxNesting   = 16
	// maxPorts bounds the published ports of one service: each of a range
	// becomes a rule of its own.
	maxPorts = 16_384
)

// overfull gives the line by which data must hold far more than maxNodes
// values, 0 if it does not: to parse it would cost gigabytes. Each value but
// the first stands behind one of a few signs.
func overfull(data []byte) int {
	const most = 4 * maxNodes
	if len(data) < most {
		return 0
	}
	signs, line := 0, 1
	for _, c := range data {
		switch c {
		case '\n':
			line++
			signs++
		case ',', ':', '-', '[', '{', '?':
			signs++
		}
		if signs > most {
			return line
		}
	}
	return 0
}

// budget checks that s can be walked and loaded in reasonable time, before
// anything expands an alias.
func (s *source) budget() *Diagnostic {
	c := counter{src: s, size: map[*yaml.Node]int{}, open: map[*yaml.Node]bool{}}
	total := 0
	for _, doc := range s.docs {
		for _, n := range doc.Content {
			total += c.count(n, 1)
			if total > maxNodes {
				c.tooMany(n)
			}
			if c.found != nil {
				return c.found
			}
		}
	}
	return nil
}

type counter struct {
	src   *source
	size  map[*yaml.Node]int  // of anchors that were counted
	open  map[*yaml.Node]bool // on the way from the root to here
	found *Diagnostic
	// aliases says that one was met.
	aliases bool
}

func (c *counter) report(n *yaml.Node, message, hint string) {
	d := c.src.node(Error, n, "", message, hint)
	c.found = &d
}

// count gives the number of values that n stands for, at most maxNodes+1.
func (c *counter) count(n *yaml.Node, depth int) int {
	if c.found != nil {
		return 0
	}
	if depth > maxDepth {
		c.report(n, fmt.Sprintf("nested deeper than %d levels", maxDepth), "write it flatter")
		return 0
	}
	if n.Kind == yaml.AliasNode {
		if c.open[n.Alias] {
			c.report(n, fmt.Sprintf("*%s stands inside &%s: it would contain itself", n.Value, n.Value), "move the anchor out")
			return 0
		}
		return c.anchor(n, depth)
	}
	total := 1
	c.open[n] = true
	for _, child := range n.Content {
		total += c.count(child, depth+1)
		if total > maxNodes {
			c.tooMany(child)
			break
		}
	}
	delete(c.open, n)
	return total
}

func (c *counter) anchor(n *yaml.Node, depth int) int {
	size, ok := c.size[n.Alias]
	if !ok {
		size = c.count(n.Alias, depth)
		c.size[n.Alias] = size
	}
	c.aliases = true
	return size
}

// tooMany reports the node with which the limit was passed.
func (c *counter) tooMany(n *yaml.Node) {
	switch {
	case c.found != nil:
	case c.aliases:
		c.report(n, fmt.Sprintf("with its aliases written out the file holds more than %d values", maxNodes),
			"use fewer aliases inside anchors")
	default:
		c.report(n, fmt.Sprintf("the file holds more than %d values", maxNodes), "split it, or move data into files")
	}
}

// tooManyVariables says what makes a text too costly to interpolate; "" if
// nothing does.
func tooManyVariables(text string) string {
	count, depth, open := 0, 0, 0
	for i := 0; i+1 < len(text); i++ {
		switch {
		case text[i] == '$' && text[i+1] == '$':
			i++
		case text[i] == '$' && text[i+1] == '{':
			count++
			open++
			depth = max(depth, open)
		case text[i] == '$':
			count++
		case text[i] == '}' && open > 0:
			open--
		}
	}
	switch {
	case count > maxVariables:
		return fmt.Sprintf("more than %d variables in one text", maxVariables)
	case depth > maxNesting:
		return fmt.Sprintf("variables nested deeper than %d levels", maxNesting)
	}
	return ""
}

var portRange = lazy(`(\d+)-(\d+)`)

// portCount is how many ports a short form publishes, at least roughly.
func portCount(text string) int {
	most := 1
	for _, m := range portRange().FindAllStringSubmatch(text, -1) {
		from, _ := strconv.Atoi(m[1])
		to, _ := strconv.Atoi(m[2])
		most = max(most, to-from+1)
	}
	// A host range for one port of the container is one entry.
	if i := strings.LastIndexByte(text, ':'); i >= 0 && !strings.Contains(text[i:], "-") {
		return 1
	}
	return most
}
