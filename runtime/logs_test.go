package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const stamp = "2026-11-23T14:56:11.364852880+00:00"

func TestParseLogLine(t *testing.T) {
	at, err := time.Parse(time.RFC3339Nano, stamp)
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]LogLine{
		stamp + " stdout F hello world\n": {Time: at, Stream: "stdout", Text: "hello world"},
		stamp + " stderr P part\n":        {Time: at, Stream: "stderr", Text: "part", Partial: true},
		stamp + " stdout F \n":            {Time: at, Stream: "stdout"},
		stamp + " stdout F\n":             {Time: at, Stream: "stdout"},
		stamp + " stdout F  two\n":        {Time: at, Stream: "stdout", Text: " two"},
	} {
		got, err := parseLogLine([]byte(text))
		if err != nil || got.Text != want.Text || got.Stream != want.Stream || got.Partial != want.Partial || !got.Time.Equal(want.Time) {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "\n", "x", stamp + " stdout\n", stamp + " stdlog F x\n", stamp + " stdout X x\n", "yesterday stdout F x\n"} {
		if l, err := parseLogLine([]byte(text)); err == nil {
			t.Errorf("%q was taken for %+v", text, l)
		}
	}
}

func FuzzLogLine(f *testing.F) {
	f.Add([]byte(stamp + " stdout F hello\n"))
	f.Add([]byte(stamp + " stderr P \n"))
	f.Add([]byte("\x00 \x00 F"))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := parseLogLine(b)
		if err != nil {
			return
		}
		if l.Stream != "stdout" && l.Stream != "stderr" {
			t.Errorf("stream %q", l.Stream)
		}
		if tag := logTag(b); (tag == 'P') != l.Partial {
			t.Errorf("tag %q of a line with Partial %v", tag, l.Partial)
		}
	})
}

// FuzzLogFile: any bytes as a log are read to the end, with any tail.
func FuzzLogFile(f *testing.F) {
	f.Add([]byte(stamp+" stdout F a\n"+stamp+" stdout P b\n"+stamp+" stdout F c\n"), 1)
	f.Add([]byte("\n\n\n"), 2)
	f.Fuzz(func(t *testing.T, b []byte, tail int) {
		path := filepath.Join(t.TempDir(), "log")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		all := readLog(t, path, LogOptions{Tail: -1})
		part := readLog(t, path, LogOptions{Tail: max(tail, 0)})
		if len(part) > len(all) {
			t.Errorf("%d lines of %d", len(part), len(all))
		}
	})
}

func readLog(t interface {
	Helper()
	Fatal(...any)
}, path string, o LogOptions,
) []LogLine {
	t.Helper()
	var out []LogLine
	p := &logReader{path: path, o: o, f: func(l LogLine) error { out = append(out, l); return nil }}
	if err := p.run(context.Background()); err != nil && !errors.Is(err, errLogDone) {
		t.Fatal(err)
	}
	return out
}

// The tail of a log is the end of the whole, wherever the files were cut and
// whatever lines were in parts.
func TestTail_IsTheEndOfTheWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "tail")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		path := filepath.Join(dir, "log")
		logical := 0
		var starts []int // index of the physical line with which each logical one begins
		physical := 0
		files := rapid.IntRange(1, 4).Draw(t, "files")
		open := false
		for i := files - 1; i >= 0; i-- {
			var text strings.Builder
			for range rapid.IntRange(0, 30).Draw(t, "lines") {
				if !open {
					starts = append(starts, physical)
					logical++
				}
				tag := "F"
				if open = rapid.IntRange(0, 4).Draw(t, "partial") == 0; open {
					tag = "P"
				}
				size := rapid.SampledFrom([]int{0, 1, 50, 8000, 70}).Draw(t, "size")
				fmt.Fprintf(&text, "%s stdout %s %d%s\n", stamp, tag, physical, strings.Repeat("x", size))
				physical++
			}
			if err := os.WriteFile(rotatedName(path, i), []byte(text.String()), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		n := rapid.IntRange(0, 40).Draw(t, "n")
		got := readLog(t, path, LogOptions{Tail: n})
		want := physical
		if n < logical {
			want = physical - append(starts, physical)[logical-n]
		}
		if n == 0 {
			want = 0
		}
		if len(got) != want {
			t.Fatalf("%d physical lines, want %d of %d", len(got), want, physical)
		}
		if want > 0 && !strings.HasPrefix(got[0].Text, fmt.Sprint(physical-want)) {
			t.Fatalf("begins with %.10q, want line %d", got[0].Text, physical-want)
		}
	})
}

func TestLogs_SinceAndUntil(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	var text strings.Builder
	base := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range 10 {
		fmt.Fprintf(&text, "%s stdout F %d\n", base.Add(time.Duration(i)*time.Minute).Format(time.RFC3339Nano), i)
	}
	if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	got := readLog(t, path, LogOptions{Tail: -1, Since: base.Add(3 * time.Minute), Until: base.Add(5 * time.Minute)})
	if len(got) != 3 || got[0].Text != "3" || got[2].Text != "5" {
		t.Errorf("got %+v", got)
	}
}

func TestJoinPartial(t *testing.T) {
	var got []string
	each, flush := JoinPartial(10, func(l LogLine) error {
		got = append(got, fmt.Sprintf("%s:%s:%v", l.Stream, l.Text, l.Partial))
		return nil
	})
	for _, l := range []LogLine{
		{Stream: "stdout", Text: "a", Partial: true},
		{Stream: "stderr", Text: "E"},
		{Stream: "stdout", Text: "b"},
		{Stream: "stdout", Text: "12345", Partial: true},
		{Stream: "stdout", Text: "678901", Partial: true},
		{Stream: "stderr", Text: "end", Partial: true},
	} {
		if err := each(l); err != nil {
			t.Fatal(err)
		}
	}
	if err := flush(); err != nil {
		t.Fatal(err)
	}
	want := "stderr:E:false stdout:ab:false stdout:12345678901:true stderr:end:true"
	if strings.Join(got, " ") != want {
		t.Errorf("got %q", got)
	}
}

// A follower sees each line once, in order, while the log is rotated under it.
func TestLogs_FollowThroughRotation_EachLineOnce(t *testing.T) {
	b := newBench(t, "")
	c := b.container("a1", "slowlines", "3000")
	c.LogMaxSize, c.LogMaxFiles = 20<<10, 20
	if err := b.Create(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	var seen atomic.Int64
	var wg sync.WaitGroup
	wg.Go(func() {
		err := b.Logs(t.Context(), "a1", LogOptions{Tail: -1, Follow: true}, func(l LogLine) error {
			if want := fmt.Sprintf("line %d ", seen.Load()); !strings.HasPrefix(l.Text, want) {
				return fmt.Errorf("got %.30q, want %q", l.Text, want)
			}
			seen.Add(1)
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
	if err := b.Start(t.Context(), "a1"); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for rotating := true; rotating; {
		select {
		case <-done:
			rotating = false
		case <-time.After(20 * time.Millisecond):
			if err := b.RotateLogs(t.Context()); err != nil && !strings.Contains(err.Error(), "tell conmon") {
				t.Error(err)
			}
		}
	}
	if seen.Load() != 3000 {
		t.Errorf("%d lines seen", seen.Load())
	}
	if n := len(glob(t, b.LogPath("a1")+"*")); n < 3 {
		t.Errorf("%d files: the log was not rotated", n)
	}
	if n := strings.Count(b.output("a1"), "\n"); n != 3000 {
		t.Errorf("%d lines in the files", n)
	}
}

func TestRotate_CapsWhatIsKept(t *testing.T) {
	b := newBench(t, "")
	c := b.container("a1", "slowlines", "4000")
	c.LogMaxSize, c.LogMaxFiles = 10<<10, 3
	b.run(c)
	eventually(t, "the end", func() bool {
		_ = b.RotateLogs(t.Context())
		s, err := b.Status(t.Context(), "a1")
		return err == nil && s.State == StateExited
	})
	files := glob(t, b.LogPath("a1")+"*")
	if len(files) > 3 {
		t.Errorf("files %v", files)
	}
	if out := b.output("a1"); !strings.Contains(out, "line 3999 ") {
		t.Error("the newest line is not there")
	}
}

// An agent may die between the rename and telling conmon.
func TestRotate_InterruptedAfterRename_IsFinished(t *testing.T) {
	b := newBench(t, "")
	b.run(b.container("a1", "hold", "10"))
	eventually(t, "output", func() bool { return strings.Count(b.output("a1"), "\n") == 10 })
	if err := os.Rename(b.LogPath("a1"), b.LogPath("a1")+".1"); err != nil {
		t.Fatal(err)
	}
	if err := b.RotateLogs(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a new file", func() bool { return pathExists(b.LogPath("a1")) })
	if n := strings.Count(b.output("a1"), "\n"); n != 10 {
		t.Errorf("%d lines", n)
	}
}
