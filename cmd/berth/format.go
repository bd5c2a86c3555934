package main

import (
	"fmt"
	"slices"
	"strings"
)

// Values of --format. A command takes some of them.
const (
	formatTable = "table"
	formatText  = "text"
	formatJSON  = "json"
	formatYAML  = "yaml"
)

// checkFormat refuses a --format that the command does not have.
func checkFormat(format string, allowed ...string) error {
	if slices.Contains(allowed, format) {
		return nil
	}
	return fmt.Errorf("--format %q: want %s", format, strings.Join(allowed, " or "))
}

// checkPullPolicy refuses a --pull or --policy that does not exist.
func checkPullPolicy(policy string) error {
	if slices.Contains([]string{"", "always", "missing", "never"}, policy) {
		return nil
	}
	return fmt.Errorf("pull policy %q: want always, missing or never", policy)
}
