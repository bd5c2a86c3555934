package agent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"berth/runtime"
	"berth/spec"
)

// shipTimeout bounds a connect and the sending of a line.
const shipTimeout = 5 * time.Second

// syslogSink sends lines in the forms that Docker's syslog driver has.
type syslogSink struct {
	conn     net.Conn
	format   func(priority int, l runtime.LogLine) string
	facility int
	// ends is what ends a message of a stream; counted: its length goes before
	// it instead (RFC 5425).
	ends    string
	counted bool
}

// Severities of RFC 5424, 6.2.1: what a program says, and what it complains of.
const (
	severityError = 3
	severityInfo  = 6
)

func openSyslog(options map[string]string, tag string) (sink, error) {
	network, address, err := spec.SyslogAddress(options["syslog-address"])
	if err != nil {
		return nil, err
	}
	s := &syslogSink{}
	if s.facility, err = spec.SyslogFacility(options["syslog-facility"]); err != nil {
		return nil, err
	}
	host, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("find the host's name: %w", err)
	}
	s.format = syslogFormat(options["syslog-format"], host, tag)
	dialer := &net.Dialer{Timeout: shipTimeout}
	switch network {
	case "unix":
		if s.conn, err = dialer.Dial("unixgram", address); err != nil {
			s.conn, err = dialer.Dial("unix", address)
			s.ends = "\n"
		}
	case "tls":
		var config *tls.Config
		if config, err = syslogTLS(options); err != nil {
			return nil, err
		}
		s.conn, err = tls.DialWithDialer(dialer, "tcp", address, config)
		s.counted = options["syslog-format"] == "rfc5424" || options["syslog-format"] == "rfc5424micro"
		s.ends = "\n"
	default:
		s.conn, err = dialer.Dial(network, address)
		if network == "tcp" {
			s.ends = "\n"
		}
	}
	if err != nil {
		return nil, fmt.Errorf("connect to syslog: %w", err)
	}
	return s, nil
}

func syslogTLS(options map[string]string) (*tls.Config, error) {
	skip, _ := strconv.ParseBool(options["syslog-tls-skip-verify"])          // Load has checked it
	c := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: skip} //nolint:gosec // the user's explicit wish
	if path := options["syslog-tls-ca-cert"]; path != "" {
		pem, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("syslog-tls-ca-cert: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("syslog-tls-ca-cert %s holds no certificate", path)
		}
	}
	if cert := options["syslog-tls-cert"]; cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, options["syslog-tls-key"])
		if err != nil {
			return nil, fmt.Errorf("syslog-tls-cert: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// syslogFormat gives the form of a message. The default is that of a local
// syslog, without the host's name.
func syslogFormat(name, host, tag string) func(int, runtime.LogLine) string {
	pid := os.Getpid()
	switch name {
	case "rfc3164":
		return func(p int, l runtime.LogLine) string {
			return fmt.Sprintf("<%d>%s %s %s[%d]: %s", p, l.Time.Local().Format(time.Stamp), host, tag, pid, l.Text)
		}
	case "rfc5424", "rfc5424micro":
		stamp := time.RFC3339
		if name == "rfc5424micro" {
			stamp = "2006-01-02T15:04:05.000000Z07:00"
		}
		return func(p int, l runtime.LogLine) string {
			return fmt.Sprintf("<%d>1 %s %s %s %d %s - %s", p, l.Time.Local().Format(stamp), host, tag, pid, tag, l.Text)
		}
	}
	return func(p int, l runtime.LogLine) string {
		return fmt.Sprintf("<%d>%s %s[%d]: %s", p, l.Time.Local().Format(time.Stamp), tag, pid, l.Text)
	}
}

func (s *syslogSink) send(_ context.Context, l runtime.LogLine) error {
	severity := severityInfo
	if l.Stream == "stderr" {
		severity = severityError
	}
	text := s.format(s.facility<<3|severity, l)
	if s.counted {
		text = fmt.Sprintf("%d %s", len(text), text)
	} else {
		text += s.ends
	}
	if err := s.conn.SetWriteDeadline(time.Now().Add(shipTimeout)); err != nil {
		return fmt.Errorf("send to syslog: %w", err)
	}
	if _, err := s.conn.Write([]byte(text)); err != nil {
		return fmt.Errorf("send to syslog: %w", err)
	}
	return nil
}

func (s *syslogSink) close() { _ = errors.Join(s.conn.Close()) }
