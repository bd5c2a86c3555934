package main

import (
	"fmt"
	"slices"
	"strings"
)

// filterValues gives the values of --filter KEY=VALUE flags for the only key
// that a command has.
func filterValues(filters []string, key string) ([]string, error) {
	var values []string
	for _, f := range filters {
		k, v, found := strings.Cut(f, "=")
		if !found || k != key {
			return nil, fmt.Errorf("--filter %q: want %s=VALUE", f, key)
		}
		values = append(values, v)
	}
	return values, nil
}

// wanted says whether a list that may be empty, which means all, holds name.
func wanted(list []string, name string) bool {
	return len(list) == 0 || slices.Contains(list, name)
}
