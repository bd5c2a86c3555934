package spec

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Change is one difference between two versions of a service.
type Change struct {
	// Path is relative to the service, such as "environment.LOG_LEVEL".
	Path  string `json:"path"`
	Class Class  `json:"class"`
	// Old and New are printable; values of environment variables are left out.
	Old string `json:"old,omitempty"`
	New string `json:"new,omitempty"`
}

// What Old and New say where the value itself must not be shown.
const (
	saidAdded   = "added"
	saidRemoved = "removed"
	saidChanged = "changed"
	saidWatched = "is watched "
)

// String is one line: "command: [a] → [b]", "environment.TOKEN: changed".
func (c Change) String() string {
	switch {
	case c.Old == "" && (c.New == saidAdded || c.New == saidRemoved || c.New == saidChanged || strings.HasPrefix(c.New, saidWatched)):
		return c.Path + ": " + c.New
	case c.Old == "":
		return c.Path + ": " + c.New + " added"
	case c.New == "":
		return c.Path + ": " + c.Old + " removed"
	}
	return c.Path + ": " + c.Old + " → " + c.New
}

// Diff lists the differences between two versions of one service, sorted by
// path: of the services' fields, then of what Identity covers. Of environment
// variables, and of configs and secrets, it says only that they were added,
// removed or changed: their values may be secret.
func Diff(old, new *Service, oldID, newID Identity) []Change {
	var out []Change
	ov, nv := reflect.ValueOf(old).Elem(), reflect.ValueOf(new).Elem()
	for _, f := range fieldsOf(ov.Type()) {
		d := differ{class: f.class, masked: f.name == "environment"}
		d.compare(f.name, ov.Field(f.index), nv.Field(f.index))
		out = append(out, d.changes...)
	}
	sortChanges(out)
	content := diffIdentity(oldID.used(old), newID.used(new))
	was, is := InPlaceIdentity(old, oldID), InPlaceIdentity(new, newID)
	for _, k := range bothKeys(was, is) {
		if o, n := was[k], is[k]; o != "" && n != "" && o != n {
			content = append(content, Change{Path: k + ".content", Class: ClassInPlace, New: saidChanged})
		}
	}
	sortChanges(content)
	return append(out, content...)
}

func diffIdentity(old, new Identity) []Change {
	var out []Change
	if old.ImageDigest != new.ImageDigest {
		out = append(out, Change{Path: "image.digest", Old: old.ImageDigest, New: new.ImageDigest})
	}
	for _, part := range []struct {
		name     string
		old, new map[string]string
	}{
		{"configs", old.Configs, new.Configs},
		{"secrets", old.Secrets, new.Secrets},
		{"volumes", old.Volumes, new.Volumes},
		{"networks", old.Networks, new.Networks},
	} {
		for _, k := range bothKeys(part.old, part.new) {
			// A key that is only on one side shows as a change of the mount
			// or attachment that uses it.
			if o, n := part.old[k], part.new[k]; o != "" && n != "" && o != n {
				out = append(out, Change{Path: part.name + "." + k + ".content", New: saidChanged})
			}
		}
	}
	return out
}

func sortChanges(c []Change) {
	slices.SortFunc(c, func(a, b Change) int { return strings.Compare(a.Path, b.Path) })
}

// differ collects the changes of one field of Service.
type differ struct {
	class   Class
	masked  bool
	changes []Change
}

func (d *differ) compare(path string, old, new reflect.Value) {
	if reflect.DeepEqual(old.Interface(), new.Interface()) || (empty(old) && empty(new)) {
		return
	}
	switch {
	case old.Kind() == reflect.Map:
		d.maps(path, old, new)
	case old.Kind() == reflect.Struct:
		for _, f := range fieldsOf(old.Type()) {
			if _, ok := old.Interface().(Mount); ok && f.name == "digest" {
				d.content(path+".content", old.Field(f.index).String(), new.Field(f.index).String())
				continue
			}
			d.compare(path+"."+f.name, old.Field(f.index), new.Field(f.index))
		}
	case old.Kind() == reflect.Pointer && old.Type().Elem().Kind() == reflect.Struct && !old.IsNil() && !new.IsNil():
		d.compare(path, old.Elem(), new.Elem())
	case old.Kind() == reflect.Slice && old.Type().Elem().Kind() == reflect.Struct:
		d.lists(path, old, new)
	default:
		d.say(path, show(old), show(new))
	}
}

// content compares the digests of a bind that is watched.
func (d *differ) content(path, old, new string) {
	switch {
	case old == new:
	case old == "":
		d.changes = append(d.changes, Change{Path: path, Class: d.class, New: saidWatched + "from now on"})
	case new == "":
		d.changes = append(d.changes, Change{Path: path, Class: d.class, New: saidWatched + "no more"})
	default:
		d.changes = append(d.changes, Change{Path: path, Class: d.class, New: saidChanged})
	}
}

func (d *differ) say(path, old, new string) {
	if d.masked {
		switch {
		case old == "":
			old, new = "", saidAdded
		case new == "":
			old, new = "", saidRemoved
		default:
			old, new = "", saidChanged
		}
	}
	d.changes = append(d.changes, Change{Path: path, Class: d.class, Old: old, New: new})
}

func (d *differ) maps(path string, old, new reflect.Value) {
	get := func(v reflect.Value) map[string]string {
		m, _ := v.Interface().(map[string]string)
		return m
	}
	o, n := get(old), get(new)
	for _, k := range bothKeys(o, n) {
		ov, inOld := o[k]
		nv, inNew := n[k]
		if inOld == inNew && ov == nv {
			continue
		}
		at := path + "." + k
		switch {
		case !inOld:
			d.say(at, "", quoted(nv))
		case !inNew:
			d.say(at, quoted(ov), "")
		default:
			d.say(at, quoted(ov), quoted(nv))
		}
	}
}

// lists compares lists of structs item by item: by what names an item where
// something does, so that one added in front does not change all others.
func (d *differ) lists(path string, old, new reflect.Value) {
	o, n := keyed(old), keyed(new)
	before := len(d.changes)
	for _, k := range bothKeys(o, n) {
		ov, inOld := o[k]
		nv, inNew := n[k]
		at := path + "." + k
		switch {
		case !inOld:
			d.say(at, "", show(nv))
		case !inNew:
			d.say(at, show(ov), "")
		default:
			d.compare(at, ov, nv)
		}
	}
	if len(d.changes) == before {
		d.say(path, "order", "another order")
	}
}

// keyed names the items of a list by the field that tells them apart.
func keyed(list reflect.Value) map[string]reflect.Value {
	out := map[string]reflect.Value{}
	for i := range list.Len() {
		item := list.Index(i)
		key := ""
		switch v := item.Interface().(type) {
		case Mount:
			key = v.Target
		case FileMount:
			key = v.Target
		case Attachment:
			key = v.Network
		case Port:
			key = v.String()
		case Ulimit:
			key = v.Name
		case Device:
			key = v.Target
		case Dependency:
			key = v.Service
		}
		if _, taken := out[key]; taken || key == "" {
			key += "#" + strconv.Itoa(i)
		}
		out[key] = item
	}
	return out
}

// String is the port in the short form of Compose.
func (p Port) String() string {
	s := strconv.Itoa(int(p.Target))
	if p.Published != 0 || p.HostIP != "" {
		published := ""
		if p.Published != 0 {
			published = strconv.Itoa(int(p.Published))
		}
		if p.PublishedEnd != 0 {
			published += "-" + strconv.Itoa(int(p.PublishedEnd))
		}
		s = published + ":" + s
	}
	if p.HostIP != "" {
		host := p.HostIP
		if strings.Contains(host, ":") {
			host = "[" + host + "]"
		}
		s = host + ":" + s
	}
	if p.Protocol != "" && p.Protocol != "tcp" {
		s += "/" + p.Protocol
	}
	return s
}

// show prints a value for a person; the zero value is "".
func show(v reflect.Value) string {
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return ""
		}
		return showValue(v.Elem())
	}
	if v.IsZero() {
		return ""
	}
	return showValue(v)
}

func showValue(v reflect.Value) string {
	switch x := v.Interface().(type) {
	case string:
		return quoted(x)
	case time.Duration:
		return x.String()
	case []string:
		parts := make([]string, len(x))
		for i, s := range x {
			parts[i] = quoted(s)
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case fmt.Stringer:
		return x.String()
	}
	if v.Kind() != reflect.Struct {
		return fmt.Sprint(v.Interface())
	}
	var parts []string
	for _, f := range fieldsOf(v.Type()) {
		if s := show(v.Field(f.index)); s != "" {
			parts = append(parts, f.name+"="+s)
		}
	}
	return strings.Join(parts, " ")
}

// quoted quotes what would read badly bare.
func quoted(s string) string {
	if s == "" || strings.ContainsAny(s, " \t\n\"'\\,[]") || printable(s) != s {
		return strconv.Quote(s)
	}
	return s
}

func bothKeys[V any](a, b map[string]V) []string {
	all := make(map[string]struct{}, len(a)+len(b))
	for k := range a {
		all[k] = struct{}{}
	}
	for k := range b {
		all[k] = struct{}{}
	}
	return sortedKeys(all)
}
