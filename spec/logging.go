package spec

import (
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"text/template"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/docker/go-units"
)

// Drivers of Logging that Berth honours. All but none keep Berth's own log,
// which `berth logs` reads; journald and syslog get every line too.
const (
	LogJSONFile = "json-file"
	LogLocal    = "local"
	LogNone     = "none"
	LogJournald = "journald"
	LogSyslog   = "syslog"
)

// LogTag is what the template of logging.options.tag may name, as in Docker.
type LogTag struct {
	ID, FullID, Name                string
	ImageID, ImageFullID, ImageName string
	DaemonName                      string
	Stack, Service, Slot            string // Berth's own
}

// DefaultLogTag is the tag where the file is silent.
const DefaultLogTag = "{{.ID}}"

// Render fills the template of a tag in.
func (t LogTag) Render(text string) (string, error) {
	parsed, err := template.New("tag").Parse(text)
	if err != nil {
		return "", fmt.Errorf("tag %q: %w", text, err)
	}
	var b strings.Builder
	if err := parsed.Execute(&b, t); err != nil {
		return "", fmt.Errorf("tag %q: %w", text, err)
	}
	return b.String(), nil
}

// SyslogAddress reads logging.options.syslog-address. network is udp, tcp, tls,
// or unix for a socket of either kind; "" is /dev/log.
func SyslogAddress(text string) (network, address string, err error) {
	if text == "" {
		return "unix", "/dev/log", nil
	}
	u, err := url.Parse(text)
	if err != nil {
		return "", "", fmt.Errorf("syslog-address %q is not an address", text)
	}
	switch u.Scheme {
	case "unix", "unixgram":
		if u.Path == "" {
			return "", "", fmt.Errorf("syslog-address %q has no path", text)
		}
		return "unix", u.Path, nil
	case "udp", "tcp", "tcp+tls":
		if u.Hostname() == "" {
			return "", "", fmt.Errorf("syslog-address %q has no host", text)
		}
		port := u.Port()
		if port == "" {
			port = "514"
		}
		return strings.Replace(u.Scheme, "tcp+tls", "tls", 1), net.JoinHostPort(u.Hostname(), port), nil
	}
	return "", "", fmt.Errorf("syslog-address %q begins with none of udp://, tcp://, tcp+tls://, unix:// and unixgram://", text)
}

// syslogFacilities of RFC 5424, 6.2.1, by number.
var syslogFacilities = strings.Fields("kern user mail daemon auth syslog lpr news uucp cron authpriv ftp " +
	"- - - - local0 local1 local2 local3 local4 local5 local6 local7")

// SyslogFacility reads logging.options.syslog-facility, a name or a number;
// "" is daemon.
func SyslogFacility(text string) (int, error) {
	if text == "" {
		text = "daemon"
	}
	if i := slices.Index(syslogFacilities, text); i >= 0 && text != "-" {
		return i, nil
	}
	if n, err := strconv.Atoi(text); err == nil && n >= 0 && n < len(syslogFacilities) {
		return n, nil
	}
	return 0, fmt.Errorf("there is no syslog facility %q", text)
}

// logOptions are the options of each driver. The size options are those of the
// log that is kept.
var (
	keptOptions = strings.Fields("max-size max-file mode max-buffer-size cache-max-size cache-max-file")
	saidOptions = strings.Fields("tag labels labels-regex env env-regex")
	logOptions  = map[string][]string{
		"":          keptOptions,
		LogJSONFile: keptOptions,
		LogLocal:    keptOptions,
		LogNone:     {},
		LogJournald: slices.Concat(keptOptions, saidOptions),
		LogSyslog: slices.Concat(keptOptions, saidOptions, strings.Fields(`syslog-address syslog-facility syslog-format
			syslog-tls-ca-cert syslog-tls-cert syslog-tls-key syslog-tls-skip-verify`)),
	}
)

// logging checks the options of a driver that is honoured; another one was
// reported by the linter.
func (c serviceCheck) logging() {
	if c.s.Logging == nil {
		return
	}
	driver, at := c.s.Logging.Driver, c.at+".logging.options."
	known, ok := logOptions[driver]
	if !ok {
		return
	}
	for _, name := range sortedKeys(c.s.Logging.Options) {
		if !slices.Contains(known, name) {
			hint := "remove it; the log is Berth's own file"
			if slices.Contains(saidOptions, name) {
				hint = "it goes with lines that are sent on: driver syslog or journald"
			}
			c.l.add(c.l.placed(Ignored, at+name, fmt.Sprintf("logging option %s is not honoured by driver %s", name, orDefault(driver, LogLocal)), hint))
			continue
		}
		if err := checkLogOption(name, c.s.Logging.Options[name]); err != nil {
			c.failValue(at+name, err.Error(), logHints[name])
		}
	}
}

func orDefault(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}

var logHints = map[string]string{
	"max-size": "write a size such as 10m", "cache-max-size": "write a size such as 10m", "max-buffer-size": "write a size such as 4m",
	"max-file": "write a number from 1", "cache-max-file": "write a number from 1", "mode": "write blocking or non-blocking",
	"tag":            "write a template such as {{.Name}}/{{.ID}}",
	"syslog-address": "write udp://HOST:PORT, tcp://HOST:PORT, tcp+tls://HOST:PORT or unix:///PATH",
	"syslog-format":  "write rfc3164, rfc5424 or rfc5424micro", "syslog-facility": "write daemon, user, local0 …",
	"syslog-tls-skip-verify": "write true or false",
}

func checkLogOption(name, value string) (err error) {
	switch name {
	case "max-size", "cache-max-size", "max-buffer-size":
		if n, perr := units.RAMInBytes(value); perr != nil || n == 0 || n < -1 {
			err = fmt.Errorf("logging option %s: %q is not a size", name, value)
		}
	case "max-file", "cache-max-file":
		if n, perr := strconv.Atoi(value); perr != nil || n < 1 {
			err = fmt.Errorf("logging option %s: %q is not a number from 1", name, value)
		}
	case "mode":
		if value != "blocking" && value != "non-blocking" {
			err = fmt.Errorf("logging option mode: %q is unknown", value)
		}
	case "tag":
		_, err = LogTag{}.Render(value)
	case "syslog-address":
		_, _, err = SyslogAddress(value)
	case "syslog-facility":
		_, err = SyslogFacility(value)
	case "syslog-format":
		if !slices.Contains([]string{"", "rfc3164", "rfc5424", "rfc5424micro"}, value) {
			err = fmt.Errorf("syslog-format %q is unknown", value)
		}
	case "syslog-tls-skip-verify":
		if _, perr := strconv.ParseBool(value); perr != nil {
			err = fmt.Errorf("syslog-tls-skip-verify: %q is neither true nor false", value)
		}
	}
	return err
}

// Shipped says that the lines of a service are sent on.
func (l Logging) Shipped() bool { return l.Driver == LogJournald || l.Driver == LogSyslog }

func logging(s types.ServiceConfig) Logging {
	if s.Logging == nil {
		return Logging{}
	}
	return Logging{Driver: s.Logging.Driver, Options: filled(s.Logging.Options)}
}
