package runtime

import (
	"bytes"
	"io"
	"os"
)

// seekTail places the files so that reading on gives the last n lines of the
// log; parts of one line count as one. It reads backwards, so it costs what
// those lines are long, not what the log is. Files that are not needed are
// closed and left out; the last is always kept.
func seekTail(files []*os.File, n int) ([]*os.File, error) {
	c := &tailCounter{want: n}
	for i := len(files) - 1; i >= 0; i-- {
		off, err := c.search(files[i])
		if err != nil {
			return files, err
		}
		if _, err := files[i].Seek(off, io.SeekStart); err != nil {
			return files, err
		}
		if c.done {
			closeAll(files[:i])
			return files[i:], nil
		}
	}
	return files, nil
}

// tailCounter counts line ends, newest first, over the files of a log.
type tailCounter struct {
	want, seen int
	done       bool
}

const tailBlock = 64 << 10

// search returns the offset at which the wanted lines begin in f; the start of
// f if they begin earlier.
func (c *tailCounter) search(f *os.File) (int64, error) {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, err
	}
	// carry is the beginning of the line that the block read last cut in two.
	var carry []byte
	pos := end
	next := end // where the line after the one looked at begins
	for pos > 0 {
		size := min(pos, tailBlock)
		pos -= size
		block := make([]byte, size, size+int64(len(carry)))
		if _, err := f.ReadAt(block, pos); err != nil {
			return 0, err
		}
		block = append(block, carry...)
		for {
			i := bytes.LastIndexByte(bytes.TrimSuffix(block, []byte("\n")), '\n')
			if i < 0 && pos > 0 {
				break
			}
			if c.ends(block[i+1:]) {
				return next, nil
			}
			next = pos + int64(i+1)
			block = block[:i+1]
			if i < 0 {
				break
			}
		}
		carry = block
		if len(carry) > maxLogLine {
			carry = carry[:maxLogLine]
		}
	}
	return 0, nil
}

// ends looks at the next older line, and says whether the wanted ones begin
// after it. A line that goes on (P) belongs to the one after it.
func (c *tailCounter) ends(line []byte) bool {
	if len(line) == 0 {
		return false
	}
	if logTag(line) == 'P' && c.seen > 0 {
		return false
	}
	if c.seen == c.want {
		c.done = true
		return true
	}
	c.seen++
	return false
}
