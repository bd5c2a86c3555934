package e2e_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"berth/api"
)

// canaries are secret values, and all that was seen where none may be. Its
// search shares nothing with what keeps them out.
type canaries struct {
	values map[string]string // by where they are given
	forms  map[string]string // what to look for, to where it is given
	byTwo  map[[4]byte][]string

	mu      sync.Mutex
	answers []answered
}

// answered is something that was said: an answer of the API, the output of a
// command.
type answered struct {
	what string
	text []byte
}

// newCanaries makes values of 8 bytes to some KiB; some have characters that
// are escaped wherever they are written, some have lines, some are no text.
func newCanaries() *canaries {
	return &canaries{values: map[string]string{}, forms: map[string]string{}, byTwo: map[[4]byte][]string{}}
}

// Kinds of values.
const (
	plainValue = iota
	awkwardValue
	linesValue
	binaryValue
)

// more makes a value.
func (c *canaries) more(where string, kind, size int) string {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	runes := []rune(letters)
	switch kind {
	case awkwardValue:
		runes = []rune(letters + `"'\<>&%$+/?=#@: äé漢` + "\t\u2028")
	case linesValue:
		runes = []rune(letters + letters + "\n")
	}
	value := make([]byte, 0, size)
	for len(value) < size {
		if kind == binaryValue {
			value = append(value, byte(rand.IntN(256)))
			continue
		}
		value = append(value, string(runes[rand.IntN(len(runes))])...)
	}
	// White space at the ends is not part of a value.
	value[0], value[len(value)-1] = 'v', 'e'
	text := strings.ToValidUTF8(string(value), "?")
	if kind == binaryValue {
		text = string(value)
	}
	c.values[where] = text
	c.look(where, text)
	return text
}

// look remembers the forms of a value.
func (c *canaries) look(where, v string) {
	quoted, _ := json.Marshal(v) // a string always encodes
	forms := []string{
		v, strings.Trim(strconv.Quote(v), `"`), string(quoted[1 : len(quoted)-1]), url.QueryEscape(v), url.PathEscape(v),
		hex.EncodeToString([]byte(v)), strings.ToUpper(hex.EncodeToString([]byte(v))),
	}
	for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		// Whatever stands before and behind it: three alignments.
		forms = append(forms, enc.EncodeToString([]byte(v)[:len(v)/3*3]), enc.EncodeToString([]byte(v)[1:1+(len(v)-1)/3*3]), enc.EncodeToString([]byte(v)[2:2+(len(v)-2)/3*3]))
	}
	for _, form := range forms {
		if _, known := c.forms[form]; !known && len(form) >= 8 {
			c.forms[form] = where
			key := [4]byte([]byte(form))
			c.byTwo[key] = append(c.byTwo[key], form)
		}
	}
}

// in gives where the values were given that are in data.
func (c *canaries) in(data []byte) (found []string) {
	for i := 0; i+4 <= len(data); i++ {
		for _, form := range c.byTwo[[4]byte(data[i:])] {
			if bytes.HasPrefix(data[i:], []byte(form)) {
				found = append(found, fmt.Sprintf("%s at %d, as %.24q", c.forms[form], i, form))
			}
		}
	}
	return found
}

// keep remembers something that was said.
func (c *canaries) keep(what string, text []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answers = append(c.answers, answered{what, text})
}

// heard is how much of it there is.
func (c *canaries) heard() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range c.answers {
		if a.what != header {
			n++
		}
	}
	return n
}

const header = "header"

// said looks through what was said.
func (c *canaries) said() (hits []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range c.answers {
		for _, hit := range c.in(a.text) {
			hits = append(hits, a.what+": "+hit)
		}
	}
	return hits
}

// search looks through all files below dirs and their names, freed pages of
// databases too, but for the tmpfs of tasks and what own names: what a container
// itself has written.
func (c *canaries) search(t *testing.T, own []string, dirs ...string) (files int, hits []string) {
	t.Helper()
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil {
				return nil //nolint:nilerr // what goes while we look is not there
			}
			hits = append(hits, c.named(path)...)
			if e.IsDir() && isTmpfs(path) && filepath.Base(filepath.Dir(path)) == "secrets" {
				return filepath.SkipDir
			}
			if !e.Type().IsRegular() {
				return nil
			}
			for _, name := range own {
				if strings.Contains(path, name) {
					return nil
				}
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return nil //nolint:nilerr // as above
			}
			files++
			for _, hit := range c.in(data) {
				hits = append(hits, path+": "+hit)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return files, hits
}

func (c *canaries) named(path string) (hits []string) {
	for _, hit := range c.in([]byte(path)) {
		hits = append(hits, "the name "+path+": "+hit)
	}
	target, _ := os.Readlink(path) // most are no links
	for _, hit := range c.in([]byte(target)) {
		hits = append(hits, "the link "+path+": "+hit)
	}
	return hits
}

func isTmpfs(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == unix.TMPFS_MAGIC
}

// programs looks at the arguments and variables of Berth's own processes.
func (c *canaries) programs(root, run string) (n int, hits []string) {
	for _, word := range []string{root, run} {
		for _, pid := range processes(word) {
			exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)) // it may have ended
			for _, name := range []string{"cmdline", "environ"} {
				if name == "environ" && filepath.Base(exe) != "berthd" && filepath.Base(exe) != "conmon" {
					continue // a test of ours, or a container
				}
				data, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
				if err != nil {
					continue
				}
				n++
				for _, hit := range c.in(data) {
					hits = append(hits, fmt.Sprintf("%s of %s (%d): %s", name, exe, pid, hit))
				}
			}
		}
	}
	return n, hits
}

// listen passes the API of the agent in run on, below a folder that it returns,
// and keeps all that is answered.
func (c *canaries) listen(t *testing.T, run string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "canary")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", api.Socket(dir))
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host = "http", "berth" },
		FlushInterval: -1,
		Transport: &http.Transport{DisableKeepAlives: true, Dial: func(string, string) (net.Conn, error) { //nolint:staticcheck // as in net/http's own tests
			return net.DialTimeout("unix", api.Socket(run), time.Second)
		}},
		ModifyResponse: func(r *http.Response) error {
			if r.StatusCode != http.StatusSwitchingProtocols {
				r.Body = &recorded{ReadCloser: r.Body, c: c, what: r.Request.Method + " " + r.Request.URL.Path}
			}
			for name, list := range r.Header {
				c.keep(header, []byte(name+": "+strings.Join(list, " ")))
			}
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
	server := &http.Server{Handler: proxy}
	go server.Serve(l) // ends with Close
	t.Cleanup(func() {
		server.Close()
		os.RemoveAll(dir)
	})
	return dir
}

// recorded is an answer that is kept when it has been read.
type recorded struct {
	io.ReadCloser
	c    *canaries
	what string
	text []byte
}

func (r *recorded) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.text = append(r.text, p[:n]...)
	return n, err
}

func (r *recorded) Close() error {
	r.c.keep(r.what, r.text)
	return r.ReadCloser.Close()
}
