package runtime

import (
	"encoding/json"
	"strings"
)

// This file is the only one that reads what crun and runc say. Their texts
// are no interface; testdata/errtext has what the two really print.

// reasons maps parts of a message to a reason, first match wins. crun appends
// the errno's text; runc nests everything in "container_linux.go" phrases.
var reasons = []struct {
	part   string
	reason Reason
}{
	{"exec format error", ReasonFormat},
	{"chdir to cwd", ReasonWorkingDir},
	{"chdir(", ReasonWorkingDir},
	{"invalid netns path", ReasonNamespace},
	{"setns", ReasonNamespace},
	{"lstat /proc/", ReasonNamespace},
	{"error mounting", ReasonMount},
	{"mount `", ReasonMount},
	{"error stat'ing file `", ReasonMount},
	{"executable file ", ReasonNotFound},
	{"open executable", ReasonNotFound},
	{"exec container process", ReasonNotFound},
	{`exec: "`, ReasonNotFound},
	{"exec /", ReasonNotFound},
	{"open `", ReasonNamespace}, // crun, of a namespace's path
	{"cgroup", ReasonCgroup},
	{"permission denied", ReasonPermission},
}

// startError turns what a runtime printed into a StartError.
func startError(command, text string) *StartError {
	detail := lastMessage(text)
	return &StartError{Reason: reasonOf(detail), Detail: detail, Command: command}
}

func reasonOf(text string) Reason {
	t := strings.ToLower(text)
	for _, r := range reasons {
		if !strings.Contains(t, r.part) {
			continue
		}
		// "open executable: Permission denied" and its like: found, but not ours
		// to run.
		if r.reason == ReasonNotFound && containsAny(t, "permission denied", "operation not permitted") {
			return ReasonPermission
		}
		return r.reason
	}
	return ReasonOther
}

// lastMessage finds the last message in a runtime's output, which is JSON
// lines (--log-format=json), plain text, or both, and puts it on one line.
func lastMessage(text string) string {
	var msg string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		if m, level, ok := jsonMessage(line); ok {
			if m != "" && (level == "" || level == "error" || level == "fatal" || msg == "") {
				msg = m
			}
			continue
		}
		msg = line
	}
	return tidy(msg)
}

func jsonMessage(line string) (msg, level string, ok bool) {
	if !strings.HasPrefix(line, "{") {
		return "", "", false
	}
	var l struct{ Msg, Level string }
	if json.Unmarshal([]byte(line), &l) != nil {
		return "", "", false
	}
	return l.Msg, l.Level, true
}

// tidy drops the prefixes that only say which program and which of its
// functions is speaking.
func tidy(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	for _, p := range []string{
		"runc create failed: ", "runc run failed: ", "exec failed: ",
		"unable to start container process: ", "OCI runtime error: ",
	} {
		s = strings.TrimPrefix(s, p)
	}
	if i := strings.Index(s, "level=error msg="); i >= 0 {
		s = strings.Trim(s[i+len("level=error msg="):], `"`)
	}
	const limit = 600
	if len(s) > limit {
		s = s[:limit] + "…"
	}
	return s
}

// saysGone says whether a runtime's message means that the container, or its
// process, is not there any more: success for kill and delete.
func saysGone(text string) bool {
	return containsAny(text,
		"does not exist", "no such process", "container not running", "is not running",
		"process already finished", "cannot open directory '", "/status`: no such file")
}

// saysStarted says whether start failed because it had been done already. crun
// misses the fifo that a start removes.
func saysStarted(text string) bool {
	return containsAny(text, "already running", "already started", "/exec.fifo`: no such file")
}

// saysStopped says whether a runtime refused because the container has exited.
func saysStopped(text string) bool {
	return containsAny(text, "container not running", "is not running", "that has stopped", "has run and stopped")
}

// saysBusy says whether a removal may succeed when tried again.
func saysBusy(text string) bool {
	return containsAny(text, "device or resource busy", "resource busy", "is not stopped")
}

func containsAny(text string, parts ...string) bool {
	t := strings.ToLower(text)
	for _, p := range parts {
		if strings.Contains(t, strings.ToLower(p)) {
			return true
		}
	}
	return false
}
