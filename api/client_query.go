package api

import (
	"net/url"
	"strconv"
	"strings"
)

// Values encodes q as the parameters services (comma-separated), index,
// follow, since, until, tail and revision. What is zero is left out, but for
// tail: a Tail of 0 is "none", one below 0 is "all" and left out.
func (q LogQuery) Values() url.Values {
	v := url.Values{}
	setList(v, "services", q.Services)
	setInt(v, "index", int64(q.Index))
	setBool(v, "follow", q.Follow)
	setText(v, "since", q.Since)
	setText(v, "until", q.Until)
	setInt(v, "revision", int64(q.Revision)) //nolint:gosec // counts up from 1
	if q.Tail >= 0 {
		v.Set("tail", strconv.Itoa(q.Tail))
	}
	return v
}

// Values encodes q as the parameters stack, services (comma-separated),
// since, until and follow, leaving out what is zero.
func (q EventQuery) Values() url.Values {
	v := url.Values{}
	setText(v, "stack", q.Stack)
	setList(v, "services", q.Services)
	setText(v, "since", q.Since)
	setText(v, "until", q.Until)
	setBool(v, "follow", q.Follow)
	return v
}

func setText(v url.Values, key, value string) {
	if value != "" {
		v.Set(key, value)
	}
}

func setList(v url.Values, key string, values []string) { setText(v, key, strings.Join(values, ",")) }

func setInt(v url.Values, key string, value int64) {
	if value != 0 {
		v.Set(key, strconv.FormatInt(value, 10))
	}
}

func setBool(v url.Values, key string, value bool) {
	if value {
		v.Set(key, "true")
	}
}
