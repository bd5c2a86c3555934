package main

import (
	"fmt"
	"slices"
	"strings"

	"berth/cli"
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

// checkListFormat is checkFormat for lists, which templates can print as well.
func checkListFormat(format string) error {
	if cli.IsTemplate(format) {
		return nil
	}
	if err := checkFormat(format, formatTable, formatJSON); err != nil {
		return fmt.Errorf("%w, or a template such as '{{.Name}}'", err)
	}
	return nil
}

// checkPullPolicy refuses a --pull or --policy that does not exist.
func checkPullPolicy(policy string) error {
	if slices.Contains([]string{"", "always", "missing", "never"}, policy) {
		return nil
	}
	return fmt.Errorf("pull policy %q: want always, missing or never", policy)
}
