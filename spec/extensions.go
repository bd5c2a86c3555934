package spec

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
)

// Keys of a service, and of a config or secret, that Compose leaves to its
// implementations and Berth honours.
const (
	keyReadiness    = "x-readiness"
	keyLiveness     = "x-liveness"
	keyMinReady     = "x-min-ready"
	keyDrain        = "x-drain"
	keyDeadline     = "x-progress-deadline"
	keyWatchContent = "x-watch-content"
	keyOnChange     = "x-on-change"
	keyEnv          = "x-env"
	keyBerth        = "x-berth"
	keyProvider     = "x-provider"
	keyDecrypt      = "x-decrypt"
)

var serviceExtensions = []string{keyReadiness, keyLiveness, keyMinReady, keyDrain, keyDeadline, keyWatchContent}

// extended is what the extension keys of one service say.
type extended struct {
	readiness, liveness *Probe
	minReady            time.Duration
	drain               *time.Duration
	deadline            time.Duration
	// watched are the targets of the binds whose content is watched, with the
	// path of what asks for each.
	watched map[string]string
}

// extensions reads and checks the extension keys.
func (c serviceCheck) extensions() extended {
	var out extended
	ext := c.s.Extensions
	for _, key := range sortedKeys(ext) {
		c.l.misspelt(c.at, key, serviceExtensions)
	}
	out.readiness = c.probe(keyReadiness, ext[keyReadiness])
	out.liveness = c.probe(keyLiveness, ext[keyLiveness])
	if v, ok := c.duration(keyMinReady, ext, 0); ok {
		out.minReady = v
	}
	if v, ok := c.duration(keyDrain, ext, 0); ok {
		out.drain = &v
	}
	if v, ok := c.duration(keyDeadline, ext, time.Millisecond); ok {
		out.deadline = v
	}
	out.watched = c.watched(ext[keyWatchContent])
	for i, ref := range c.s.Configs {
		c.l.checkOnChange(c.reference("configs", i, types.FileReferenceConfig(ref)), ref.Extensions, keyEnv)
	}
	for i, ref := range c.s.Secrets {
		c.l.checkOnChange(c.reference("secrets", i, types.FileReferenceConfig(ref)), ref.Extensions, keyEnv)
	}
	return out
}

// misspelt warns of an extension key that is nearly one of Berth's: else it
// would do nothing, in silence. Any other is the user's own.
func (l *loading) misspelt(at, key string, known []string) {
	written := strings.ReplaceAll(strings.ToLower(key), "_", "-")
	for _, k := range known {
		if key != k && editDistance(written, k) <= 2 {
			l.add(l.placed(Warning, at+"."+key, fmt.Sprintf("%s means nothing to Berth", key), fmt.Sprintf("did you mean %q?", k)))
			return
		}
	}
}

// of is "x-readiness.http of service web", for a path of the service.
func (c serviceCheck) of(path string) string { return path + " of service " + c.name }

// wrong reports a value.
func (c serviceCheck) wrong(path, problem, hint string) {
	c.failValue(c.at+"."+path, c.of(path)+" "+problem, hint)
}

// mapping gives a map with only known keys.
func (c serviceCheck) mapping(path string, v any, known []string) map[string]any {
	m, ok := v.(map[string]any)
	if !ok {
		c.wrong(path, "is no mapping", "its keys are: "+strings.Join(known, ", "))
		return nil
	}
	keys := map[string]*element{}
	for _, k := range known {
		keys[k] = nil
	}
	for _, k := range sortedKeys(m) {
		if _, ok := keys[k]; ok || strings.HasPrefix(k, "x-") {
			continue
		}
		hint := "the keys are: " + strings.Join(known, ", ")
		if near := (&element{keys: keys}).suggest(k); near != "" {
			hint = fmt.Sprintf("did you mean %q?", near)
		}
		c.fail(c.at+"."+path+"."+k, fmt.Sprintf("unknown attribute %q in %s", k, c.of(path)), hint)
	}
	return m
}

// duration reads the last key of path from in; ok is false for a silent file
// and for a wrong value, which is reported.
func (c serviceCheck) duration(path string, in map[string]any, least time.Duration) (time.Duration, bool) {
	v := in[path[strings.LastIndexByte(path, '.')+1:]]
	if v == nil {
		return 0, false
	}
	var d types.Duration
	switch err := d.DecodeMapstructure(v); {
	case err != nil:
		c.wrong(path, fmt.Sprintf("is no duration: %v", v), "write 10s or 1m30s")
	case time.Duration(d) < least:
		c.wrong(path, fmt.Sprintf("is %s", time.Duration(d)), fmt.Sprintf("write at least %s", least))
	default:
		return time.Duration(d), true
	}
	return 0, false
}

// integer reads the last key of path from in, between low and high.
func (c serviceCheck) integer(path string, in map[string]any, low, high int) (int, bool) {
	v := in[path[strings.LastIndexByte(path, '.')+1:]]
	if v == nil {
		return 0, false
	}
	n, err := strconv.Atoi(fmt.Sprint(v))
	if err != nil || n < low || n > high {
		c.wrong(path, fmt.Sprintf("is %v", v), fmt.Sprintf("write a number from %d to %d", low, high))
		return 0, false
	}
	return n, true
}

// text reads the last key of path from in.
func (c serviceCheck) text(path string, in map[string]any) string {
	switch v := in[path[strings.LastIndexByte(path, '.')+1:]].(type) {
	case nil:
	case map[string]any, []any:
		c.wrong(path, "is no text", "write one value")
	default:
		return fmt.Sprint(v)
	}
	return ""
}

// watched reads x-watch-content: true, or targets of binds.
func (c serviceCheck) watched(v any) map[string]string {
	binds := map[string]*element{}
	for _, m := range c.s.Volumes {
		if m.Type == types.VolumeTypeBind {
			binds[cleanTarget(m.Target)] = nil
		}
	}
	out := map[string]string{}
	switch v := v.(type) {
	case nil:
	case []any:
		for i, item := range v {
			path := fmt.Sprintf("%s.%d", keyWatchContent, i)
			target := cleanTarget(fmt.Sprint(item))
			if _, ok := binds[target]; !ok {
				hint := "name the targets of its binds: " + strings.Join(sortedKeys(binds), ", ")
				if len(binds) == 0 {
					hint = "mount a file or folder with a bind in volumes"
				}
				c.failValue(c.at+"."+path, fmt.Sprintf("service %s has no bind at %v", c.name, item), hint)
				continue
			}
			out[target] = c.at + "." + path
		}
	default:
		switch fmt.Sprint(v) {
		case "false":
			return nil
		case "true":
		default:
			c.wrong(keyWatchContent, fmt.Sprintf("is %v", v), "write true, or a list of targets of binds")
			return nil
		}
		if len(binds) == 0 {
			c.l.add(c.l.placed(Warning, c.at+"."+keyWatchContent, "service "+c.name+" has no bind to watch", "remove it"))
		}
		for target := range binds {
			out[target] = c.at + "." + keyWatchContent
		}
	}
	return out
}

// checkOnChange checks the x-on-change of a config, a secret, or a reference
// to one; others are what else it may have.
func (l *loading) checkOnChange(at string, ext types.Extensions, others ...string) {
	for _, key := range sortedKeys(ext) {
		if key == keyEnv && !slices.Contains(others, keyEnv) {
			l.add(l.placed(Warning, at+"."+key, "x-env has no effect here", "write it where a service uses it: {source: NAME, x-env: VARIABLE}"))
			continue
		}
		l.misspelt(at, key, append(others, keyOnChange))
	}
	if _, ok := onChange(ext); ok {
		return
	}
	text, hint := fmt.Sprint(ext[keyOnChange]), "write replace, ignore or signal:SIGHUP"
	if upper := strings.ToUpper(text); strings.HasSuffix(upper, "KILL") || strings.HasSuffix(upper, "STOP") {
		hint = "name a signal that a program can handle"
	} else if name, ok := strings.CutPrefix(upper, strings.ToUpper(onChangeSignal)); ok {
		hint = suggestion(strings.TrimPrefix(name, "SIG"), signals, "name a signal that a program can handle, such as SIGHUP")
	}
	l.add(l.placedValue(Error, at+"."+keyOnChange, keyOnChange+" is "+text, hint))
}

// OnChange values, beside "signal:NAME".
const (
	OnChangeReplace = "replace" // the default
	OnChangeIgnore  = "ignore"
	onChangeSignal  = "signal:"
)

// onChange is the canonical value: "", OnChangeReplace, OnChangeIgnore or
// "signal:SIGNAME".
func onChange(ext types.Extensions) (value string, ok bool) {
	v := ext[keyOnChange]
	if v == nil {
		return "", true
	}
	text := fmt.Sprint(v)
	switch text {
	case OnChangeReplace, OnChangeIgnore:
		return text, true
	}
	name, ok := strings.CutPrefix(text, onChangeSignal)
	name = strings.TrimPrefix(strings.ToUpper(name), "SIG")
	if !ok || !slices.Contains(signals, name) && !realtimeForm().MatchString(name) {
		return "", false
	}
	return onChangeSignal + "SIG" + name, true
}

// signals that a program can handle, signal(7).
var (
	signals = strings.Fields(`ABRT ALRM BUS CHLD CONT FPE HUP ILL INT IO PIPE PROF PWR QUIT SEGV SYS TERM TRAP TSTP TTIN
		TTOU URG USR1 USR2 VTALRM WINCH XCPU XFSZ`)
	realtimeForm = lazy(`^(RTMIN(\+([0-9]|[12][0-9]|30))?|RTMAX(-([0-9]|[12][0-9]|30))?)$`)
)

// Signal gives the signal that a change of the content sends; "" is none.
func (m FileMount) Signal() string {
	name, _ := strings.CutPrefix(m.OnChange, onChangeSignal)
	if name == m.OnChange {
		return ""
	}
	return name
}

// inherit gives the references to f that say nothing of their own what f
// says.
func (m *FileMount) inherit(f File) {
	if m.OnChange == "" {
		m.OnChange = f.OnChange
	}
	if m.OnChange == OnChangeReplace {
		m.OnChange = ""
	}
}
