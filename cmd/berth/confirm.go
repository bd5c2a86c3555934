package main

import (
	"fmt"
)

// agreed says whether to go on with something that removes data: on a
// terminal it asks, unless forced. Without a terminal nobody can be asked,
// and what was typed counts.
func (a *app) agreed(force bool, question string) bool {
	if force || !isTerminal(a.stdin) {
		return true
	}
	fmt.Fprintf(a.stderr, "%s [y/N] ", question)
	var answer string
	if _, err := fmt.Fscanln(a.stdin, &answer); err != nil {
		return false
	}
	return answer == "y" || answer == "Y" || answer == "yes"
}
