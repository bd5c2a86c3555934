package agent

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"berth/images"
	"berth/runtime"
	"berth/store"
)

// journalSink speaks journald's native protocol: a datagram of fields, and
// for what is too large for one the descriptor of a sealed file
// (systemd, JOURNAL_NATIVE_PROTOCOL).
type journalSink struct {
	conn   *net.UnixConn
	fields []byte
}

func openJournal(path string, fields map[string]string) (sink, error) {
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("connect to journald: %w", err)
	}
	var b bytes.Buffer
	for _, name := range sortedKeys(fields) {
		journalField(&b, name, fields[name])
	}
	return &journalSink{conn: conn, fields: b.Bytes()}, nil
}

// journalField writes one field: NAME=value, or with a length before it where
// the value has a newline.
func journalField(b *bytes.Buffer, name, value string) {
	b.WriteString(name)
	if strings.ContainsRune(value, '\n') {
		b.WriteByte('\n')
		_ = binary.Write(b, binary.LittleEndian, uint64(len(value))) // a Buffer takes all
	} else {
		b.WriteByte('=')
	}
	b.WriteString(value)
	b.WriteByte('\n')
}

func (s *journalSink) send(_ context.Context, l runtime.LogLine) error {
	severity := severityInfo
	if l.Stream == "stderr" {
		severity = severityError
	}
	var b bytes.Buffer
	journalField(&b, "MESSAGE", l.Text)
	journalField(&b, "PRIORITY", strconv.Itoa(severity))
	journalField(&b, "SYSLOG_TIMESTAMP", l.Time.Format("2006-01-02T15:04:05.999999999Z07:00"))
	b.Write(s.fields)
	_, err := s.conn.Write(b.Bytes())
	if errors.Is(err, unix.EMSGSIZE) || errors.Is(err, unix.ENOBUFS) {
		err = s.sendFile(b.Bytes())
	}
	if err != nil {
		return fmt.Errorf("send to journald: %w", err)
	}
	return nil
}

func (s *journalSink) sendFile(data []byte) error {
	fd, err := unix.MemfdCreate("journal-entry", unix.MFD_ALLOW_SEALING|unix.MFD_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for len(data) > 0 {
		n, err := unix.Write(fd, data)
		if err != nil {
			return err
		}
		data = data[n:]
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE|unix.F_SEAL_SEAL); err != nil {
		return err
	}
	raw, err := s.conn.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = raw.Write(func(socket uintptr) bool {
		sent = unix.Sendmsg(int(socket), nil, unix.UnixRights(fd), nil, 0)
		return !errors.Is(sent, unix.EAGAIN)
	})
	return errors.Join(err, sent)
}

func (s *journalSink) close() { _ = s.conn.Close() }

// journalFields are those that Docker's driver has, and the labels and
// variables that the options name.
func (s *shippers) journalFields(t *store.Task, tag string) map[string]string {
	out := map[string]string{}
	for k, v := range s.attributes(t) {
		if name := fieldName(k); name != "" {
			out[name] = v
		}
	}
	id := t.ID[:min(len(t.ID), 12)]
	for k, v := range map[string]string{
		"CONTAINER_ID": id, "CONTAINER_ID_FULL": t.ID, "CONTAINER_NAME": t.Name(), "CONTAINER_TAG": tag,
		"SYSLOG_IDENTIFIER": tag, "IMAGE_NAME": t.Image,
	} {
		out[k] = v
	}
	return out
}

// fieldName makes the name of a field of k: capitals, digits and _, not
// beginning with _.
func fieldName(k string) string {
	name := strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, strings.ToUpper(k))
	return strings.TrimLeft(name, "_0123456789")
}

// attributes are the labels and variables of t that labels, labels-regex, env
// and env-regex ask for.
func (s *shippers) attributes(t *store.Task) map[string]string {
	o := t.Spec.Logging.Options
	out := map[string]string{}
	take := func(from map[string]string, names, pattern string) {
		for name := range strings.SplitSeq(names, ",") {
			if v, ok := from[name]; ok {
				out[name] = v
			}
		}
		form, err := regexp.Compile(pattern)
		if pattern == "" || err != nil {
			return
		}
		for k, v := range from {
			if form.MatchString(k) {
				out[k] = v
			}
		}
	}
	env := map[string]string{}
	img, err := s.a.images.Resolve(t.Digest)
	if err != nil {
		img = images.Image{} // its own variables are known without
	}
	for _, e := range environment(&t.Spec, img) {
		k, v, _ := strings.Cut(e, "=")
		env[k] = v
	}
	take(labels(t), o["labels"], o["labels-regex"])
	take(env, o["env"], o["env-regex"])
	return out
}
