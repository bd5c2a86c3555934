package runtime

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"time"
)

// maxLogLine bounds one line of a log file. conmon writes at most 8 KiB of text
// in one; a longer line is a damaged file, and is cut.
const maxLogLine = 64 << 10

// followEvery is how often a followed log is looked at. Polling a file's size
// costs less than a watch per viewer, and cannot miss a rotation.
const followEvery = 50 * time.Millisecond

// Logs calls f for each line in order, from the oldest file kept to the newest,
// until f fails (its error is returned) or the log ends. With Follow it goes on
// through rotations and ends when the container has exited and all is read.
// Lines that are not in conmon's form are passed over.
func (r *Runtime) Logs(ctx context.Context, id string, o LogOptions, f func(LogLine) error) error {
	if err := checkID(id); err != nil {
		return err
	}
	p := &logReader{path: r.LogPath(id), o: o, f: f}
	if o.Follow {
		p.ended = func() bool { return r.logEnded(id) }
	}
	if err := p.run(ctx); err != nil {
		if errors.Is(err, errLogDone) {
			return nil
		}
		return fmt.Errorf("logs of %s: %w", id, err)
	}
	return nil
}

// logEnded: nobody writes to the log any more. conmon writes the exit file
// after the last of the output.
func (r *Runtime) logEnded(id string) bool {
	t := r.find(id)
	if t == nil {
		return true
	}
	_, over := r.exited(t)
	return over
}

// errLogDone: past Until.
var errLogDone = errors.New("log done")

// logReader reads the files of one log.
type logReader struct {
	path  string
	o     LogOptions
	f     func(LogLine) error
	ended func() bool // nil: don't follow
}

// logFiles opens what there is, oldest first. A rotation in between may rename
// but never tears: files are told apart by inode, and a second look repairs.
func (p *logReader) logFiles() ([]*os.File, error) {
	for {
		files, err := p.openAll()
		if err != nil {
			return nil, err
		}
		if sameOrder(files, p.path) {
			return files, nil
		}
		closeAll(files)
	}
}

func (p *logReader) openAll() ([]*os.File, error) {
	var files []*os.File
	for i := maxLogFiles; i >= 0; i-- {
		f, err := os.Open(rotatedName(p.path, i))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			closeAll(files)
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

// sameOrder says whether no rotation happened while the files were opened: the
// newest is still the newest, and none was opened twice.
func sameOrder(files []*os.File, path string) bool {
	for i := 1; i < len(files); i++ {
		if sameFile(files[i-1], files[i]) {
			return false
		}
	}
	if len(files) == 0 {
		return true
	}
	now, err := os.Stat(path)
	if err != nil {
		return true // between rename and reopen, or no current one
	}
	last, err := files[len(files)-1].Stat()
	return err == nil && os.SameFile(now, last)
}

func sameFile(a, b *os.File) bool {
	x, err1 := a.Stat()
	y, err2 := b.Stat()
	return err1 == nil && err2 == nil && os.SameFile(x, y)
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

func (p *logReader) run(ctx context.Context) error {
	files, err := p.logFiles()
	if err != nil {
		return err
	}
	defer func() { closeAll(files) }()
	if p.o.Tail >= 0 {
		if files, err = seekTail(files, p.o.Tail); err != nil {
			return err
		}
	}
	for i, f := range files {
		if err := p.read(ctx, f, i == len(files)-1 && p.ended != nil); err != nil {
			return err
		}
	}
	if p.ended != nil && len(files) == 0 {
		return p.followNew(ctx, nil)
	}
	return nil
}

// read passes on one file; follow says to go on when it ends.
func (p *logReader) read(ctx context.Context, f *os.File, follow bool) error {
	if !p.o.Since.IsZero() && !follow {
		if fi, err := f.Stat(); err == nil && fi.ModTime().Before(p.o.Since) {
			return nil // nothing was written to it since
		}
	}
	br := bufio.NewReaderSize(f, maxLogLine)
	var part []byte // a line whose end is not written yet
	for {
		line, err := br.ReadSlice('\n')
		if err == nil || errors.Is(err, bufio.ErrBufferFull) {
			if err := ctx.Err(); err != nil {
				return err
			}
			if len(part) > 0 {
				line = append(part, line...)
				part = nil
			}
			if err := p.pass(line); err != nil {
				return err
			}
			continue
		}
		if !errors.Is(err, io.EOF) {
			return err
		}
		if len(part)+len(line) < maxLogLine {
			part = append(part, line...)
		}
		if !follow {
			return nil
		}
		next, err := p.wait(ctx, f)
		if err != nil {
			return err
		}
		if next != nil {
			return p.followNew(ctx, f)
		}
	}
}

func (p *logReader) pass(line []byte) error {
	l, err := parseLogLine(line)
	if err != nil {
		return nil //nolint:nilerr // a torn line, after a crash
	}
	if !p.o.Since.IsZero() && l.Time.Before(p.o.Since) {
		return nil
	}
	if !p.o.Until.IsZero() && l.Time.After(p.o.Until) {
		return errLogDone
	}
	return p.f(l)
}

// wait returns when f has grown (nil, nil), when the log goes on in another
// file (that file's info), or with errLogDone when the container has exited and
// f is read to its end.
func (p *logReader) wait(ctx context.Context, f *os.File) (os.FileInfo, error) {
	at, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return nil, err
	}
	for {
		// In this order: what is seen as ended, or replaced, is not written to any
		// more, so a size read after it is final.
		ended := p.ended()
		now, serr := os.Stat(p.path)
		fi, err := f.Stat()
		if err != nil {
			return nil, err
		}
		if fi.Size() > at {
			return nil, nil //nolint:nilnil // more of the same file
		}
		if serr == nil && !os.SameFile(now, fi) {
			return now, nil
		}
		if ended || !p.o.Until.IsZero() && time.Now().After(p.o.Until) {
			return nil, errLogDone
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(followEvery):
		}
	}
}

// followNew goes on with the file after old, which has been rotated; with the
// oldest if old is not there any more. old == nil: no file was there yet.
func (p *logReader) followNew(ctx context.Context, old *os.File) error {
	for {
		files, err := p.logFiles()
		if err != nil {
			return err
		}
		for i, f := range files {
			if old != nil && sameFile(f, old) {
				closeAll(files[:i+1])
				files = files[i+1:]
				break
			}
		}
		if len(files) == 0 {
			if p.ended() {
				return nil
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(followEvery):
			}
			continue
		}
		defer closeAll(files)
		for i, f := range files {
			if err := p.read(ctx, f, i == len(files)-1); err != nil {
				return err
			}
		}
		return nil
	}
}

// maxLogFiles is the highest number that is looked for; LogMaxFiles above it
// is lowered.
const maxLogFiles = 20

// rotatedName is the n-th file of a log, 0 the current one.
func rotatedName(path string, n int) string {
	if n == 0 {
		return path
	}
	return path + "." + strconv.Itoa(n)
}
