package redact

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"
	"pgregory.net/rapid"
)

// awkward are values that look different wherever they are written.
var awkward = []string{
	"swordfish",
	`with "quotes" and \backslash`,
	"a line\nand another\nand a third",
	"<html> & 'more'",
	"dollar$sign%percent+plus/slash@at:colon",
	"umläut and \u2028 and \x07 and 漢字",
	"\x00\x01\xff\xfebinary\x80",
	strings.Repeat("long ", 2000),
	strings.Repeat("long\n\"", 100),
}

// shown are ways in which a program writes a value.
var shown = map[string]func(v string) string{
	"bare":     func(v string) string { return "it is " + v + "." },
	"%q":       func(v string) string { return fmt.Sprintf("it is %q.", v) },
	"%q of %q": func(v string) string { return fmt.Sprintf("%q", fmt.Sprintf("it is %q.", v)) },
	"%+q":      func(v string) string { return fmt.Sprintf("it is %+q.", v) },
	"bytes":    func(v string) string { return fmt.Sprintf("it is %v", []byte(v)) },
	"%x":       func(v string) string { return fmt.Sprintf("it is %x.", v) },
	"%X":       func(v string) string { return fmt.Sprintf("it is %X.", v) },
	"query":    func(v string) string { return "http://host/?password=" + url.QueryEscape(v) + "&more=1" },
	"path":     func(v string) string { return "http://host/" + url.PathEscape(v) + "/more" },
	"userinfo": func(v string) string {
		return (&url.URL{Scheme: "http", User: url.UserPassword("me", v), Host: "host"}).String()
	},
	"base64":       func(v string) string { return base64.StdEncoding.EncodeToString([]byte(v)) },
	"basic auth":   func(v string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte("me:"+v)) },
	"base64 after": func(v string) string { return base64.URLEncoding.EncodeToString([]byte("ab" + v + "more")) },
	"JSON":         func(v string) string { data, _ := json.Marshal(map[string]string{"v": v}); return string(data) },
	"JSON in JSON": func(v string) string {
		data, _ := json.Marshal(v)
		data, _ = json.Marshal("it is " + string(data))
		return string(data)
	},
	"slog": func(v string) string {
		var out strings.Builder
		slog.New(slog.NewTextHandler(&out, nil)).Info("it is", "err", fmt.Errorf("it is %q", v))
		return out.String()
	},
}

// finds looks for a value as a person would that knows its forms.
func finds(text, v string) bool {
	for _, form := range []string{
		v, strings.Trim(strconv.Quote(v), `"`), hex.EncodeToString([]byte(v)), url.QueryEscape(v), base64.StdEncoding.EncodeToString([]byte(v)),
	} {
		if strings.Contains(text, form) {
			return true
		}
	}
	return false
}

func TestText_EveryFormOfEveryValue_IsReplaced(t *testing.T) {
	var s Set
	for _, v := range awkward {
		s.Add([]byte(v + "\n"))
	}
	for _, v := range awkward {
		for name, show := range shown {
			v := strings.TrimSpace(v)
			text := show(v)
			got := s.Text(text)
			if !strings.Contains(got, Mark) || finds(got, v) {
				t.Errorf("%s of %.40q is %.200q", name, v, got)
			}
			if strings.Contains(got, Mark+Mark) {
				t.Errorf("%s of %.40q is more than one hole: %.200q", name, v, got)
			}
			if !bytes.Equal(s.Bytes([]byte(text)), []byte(got)) {
				t.Errorf("%s of %.40q: Bytes differs from Text", name, v)
			}
		}
	}
}

func TestText_WhatIsNoValue_Stays(t *testing.T) {
	var s Set
	s.Add([]byte("short"), []byte("seven77\n"), []byte(""), []byte("      \n"), []byte("swordfish"))
	if s.Len() != 1 {
		t.Errorf("it knows %d values, want the one of 8 bytes and more", s.Len())
	}
	for _, text := range []string{"", "swordfis", "swordfi sh", "short and seven77", "Swordfish", strings.Repeat("swordfis", 1000)} {
		if got := s.Text(text); got != text {
			t.Errorf("%q became %q", text, got)
		}
	}
	var none *Set
	none.Add([]byte("swordfish"))
	none.Name("swordfish")
	none.Reset()
	if got := none.Text("swordfish") + string(none.JSON([]byte(`"swordfish"`))) + string(none.YAML([]byte("swordfish"))); strings.Contains(got, Mark) || none.Len() != 0 {
		t.Errorf("a Set that is nil says %q", got)
	}
}

func TestText_ValuesThatOverlap_NothingOfThemIsLeft(t *testing.T) {
	var s Set
	s.Add([]byte("abcdefghij"), []byte("efghijklmnop"), []byte("abcdefghijk"), []byte("mnopqrstu"))
	for text, want := range map[string]string{
		"-abcdefghijklmnopqrstu-": "-" + Mark + "-",
		"-abcdefghij-":            "-" + Mark + "-",
		"abcdefghijkabcdefghij":   Mark + Mark,
		"efghijklmnopqrstu":       Mark,
	} {
		if got := s.Text(text); got != want {
			t.Errorf("%s became %s, want %s", text, got, want)
		}
	}
}

func TestText_OneLineOfAValue_IsReplaced(t *testing.T) {
	key := "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIGjLw0A6\n  short\nPassw0rd\nvdT9MTn1zJfZ5uZ4pSNv2e9c\n-----END PRIVATE KEY-----\n"
	var s Set
	s.Add([]byte(key))
	if got, want := s.Text("last line: vdT9MTn1zJfZ5uZ4pSNv2e9c, short, Passw0rd"), "last line: "+Mark+", short, "+Mark; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestName_AValueInAName_Stays(t *testing.T) {
	for _, order := range []string{"names first", "values first"} {
		t.Run(order, func(t *testing.T) {
			var s Set
			steps := []func(){
				func() { s.Name("db_password", "docker.io/library/postgres:15", "tiny") },
				func() { s.Add([]byte("password"), []byte("postgres"), []byte("swordfish"), []byte("password1")) },
			}
			if order == "values first" {
				slices.Reverse(steps)
			}
			for _, step := range steps {
				step()
			}
			const text = "db_password of postgres-1: password password1 swordfish"
			if got, want := s.Text(text), "db_password of postgres-1: password "+Mark+" "+Mark; got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
}

func TestReset_OnlyTheGivenValuesAreLeft(t *testing.T) {
	var s Set
	s.Name("a-name-swordfish")
	s.Add([]byte("old value"), []byte("kept value"))
	s.Reset([]byte("kept value"), []byte("swordfish"))
	if got, want := s.Text("old value, kept value, swordfish"), "old value, "+Mark+", swordfish"; got != want || s.Len() != 2 {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestJSON_StaysWhatItWas(t *testing.T) {
	var s Set
	s.Add([]byte("12345678"), []byte("2026-11-24"), []byte(`{"service"`), []byte("swordfish"), []byte(`pass"word"`), []byte("a\nb\nc\nd\ne"))
	type answer struct {
		Number  int64             `json:"number"`
		Time    time.Time         `json:"time"`
		Text    string            `json:"text"`
		Env     map[string]string `json:"env"`
		Service string            `json:"service"`
	}
	in := answer{
		1234567890, time.Date(2026, 11, 24, 1, 2, 3, 0, time.UTC), `it is "swordfish\" pass"word" <12345678>`,
		map[string]string{"A": "a\nb\nc\nd\ne", "swordfish": "2026-11-24"},
		"web",
	}
	text, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	var out answer
	if err := json.Unmarshal(s.JSON(text), &out); err != nil {
		t.Fatalf("%v: %s", err, s.JSON(text))
	}
	want := answer{in.Number, in.Time, `it is "` + Mark + `\" ` + Mark + ` <` + Mark + `>`, map[string]string{"A": Mark, Mark: Mark}, "web"}
	if fmt.Sprint(out) != fmt.Sprint(want) {
		t.Errorf("got  %+v\nwant %+v", out, want)
	}
	for _, broken := range []string{`"swordfish`, `swordfish\`, `"swordfish\`, `"a" swordfish "`} {
		if got := s.JSON([]byte(broken)); len(got) == 0 {
			t.Errorf("%s became nothing", broken)
		}
	}
}

func TestYAML_HoweverItIsFolded(t *testing.T) {
	var s Set
	long := strings.Repeat("word by word ", 20)
	s.Add([]byte("a: b\nc: d\n"), []byte(long), []byte("it's \"quoted\""), []byte("12345678"))
	in := map[string]any{
		"services": map[string]any{"web": map[string]any{
			"environment": map[string]string{"A": "a: b\nc: d\n", "B": "x" + long, "C": "it's \"quoted\"", "D": "12345678", "E": "plain"},
		}},
	}
	text, err := yaml.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]map[string]map[string]map[string]string
	if err := yaml.Unmarshal(s.YAML(text), &out); err != nil {
		t.Fatalf("%v: %s", err, s.YAML(text))
	}
	got := out["services"]["web"]["environment"]
	if want := map[string]string{"A": Mark, "B": "x" + Mark, "C": Mark, "D": Mark, "E": "plain"}; strings.TrimSpace(got["A"]) != Mark || strings.TrimSpace(got["B"]) != want["B"] || got["C"] != want["C"] || got["D"] != want["D"] || got["E"] != want["E"] {
		t.Errorf("got %q, want %q", got, want)
	}
	const none = "a:   plain # with a comment\n"
	if got := s.YAML([]byte(none)); string(got) != none {
		t.Errorf("without a value it became %q", got)
	}
}

// Whatever the values and the text are, nothing of the values is left, and all
// else is.
func TestText_Whatever(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.StringMatching(`[ab]{8,20}`), 0, 5).Draw(t, "values")
		text := rapid.StringMatching(`[abc]{0,200}`).Draw(t, "text")
		var s Set
		covered := make([]bool, len(text))
		for _, v := range values {
			s.Add([]byte(v))
			for i := 0; i+len(v) <= len(text); i++ {
				if text[i:i+len(v)] == v {
					for j := i; j < i+len(v); j++ {
						covered[j] = true
					}
				}
			}
		}
		var rest strings.Builder
		for i, hidden := range covered {
			if !hidden {
				rest.WriteByte(text[i])
			}
		}
		if got := strings.ReplaceAll(s.Text(text), Mark, ""); got != rest.String() {
			t.Fatalf("%q is left, want %q", got, rest.String())
		}
	})
}

func TestWriter_ALogAtAnyLevel(t *testing.T) {
	var s Set
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(s.Writer(&out), &slog.HandlerOptions{Level: slog.LevelDebug}))
	s.Add([]byte("it's \"swordfish\"\n"))
	log.Debug("it's \"swordfish\"", "key", []string{"it's \"swordfish\""}, "err", errors.New("it's \"swordfish\""))
	if text := out.String(); strings.Contains(text, "swordfish") || strings.Count(text, Mark) != 3 {
		t.Error(text)
	}
	if n, err := s.Writer(io.Discard).Write([]byte("it's \"swordfish\"")); n != 16 || err != nil {
		t.Errorf("it says that it wrote %d bytes: %v", n, err)
	}
}

func TestMain(m *testing.M) {
	if os.Getenv("REDACT_PANIC") != "" {
		var s Set
		s.Add([]byte("swordfish"))
		done := make(chan bool)
		go func() {
			defer close(done)
			defer s.Guard()
			fails([]byte("swordfish"), errors.New("it is swordfish"))
		}()
		<-done
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func fails(_ []byte, err error) { panic(err) }

func TestGuard_APanic_EndsTheProcessWithoutTheValue(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "REDACT_PANIC=1", "GOTRACEBACK=all")
	out, _ := cmd.CombinedOutput()
	if code := cmd.ProcessState.ExitCode(); code != 2 {
		t.Errorf("it ends with %d", code)
	}
	for _, want := range []string{"panic: it is " + Mark, "redact.fails(...)", "set_test.go:"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("it does not say %s:\n%s", want, out)
		}
	}
	if strings.Contains(string(out), "swordfish") || strings.Contains(string(out), hex.EncodeToString([]byte("swordfish"))) {
		t.Errorf("it says\n%s", out)
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("without a Set the panic is lost")
			}
		}()
		defer (*Set)(nil).Guard()
		panic("as before")
	}()
}

func known(n int) *Set {
	var s Set
	for range n {
		v := make([]byte, 32)
		_, _ = rand.Read(v)
		s.Add([]byte(hex.EncodeToString(v)))
	}
	return &s
}

func BenchmarkText(b *testing.B) {
	line := strings.Repeat(`{"service":"web","state":"running","image":"docker.io/library/nginx:1.27"},`, 128)
	for _, n := range []int{0, 1, 10, 300, 3000} {
		b.Run(fmt.Sprint(n, " values"), func(b *testing.B) {
			s := known(n)
			b.SetBytes(int64(len(line)))
			for b.Loop() {
				s.Text(line)
			}
		})
	}
}

func BenchmarkAdd(b *testing.B) {
	for _, size := range []int{32, 4 << 10, 500 << 10} {
		b.Run(fmt.Sprint(size, " bytes"), func(b *testing.B) {
			var s Set
			v := make([]byte, size)
			for b.Loop() {
				_, _ = rand.Read(v)
				s.Add(v)
			}
		})
	}
}
