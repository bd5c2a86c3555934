package images

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"berth/crash"
)

// blob is a layer as a manifest names it.
type blob struct {
	digest    string
	size      int64
	mediaType string
}

func hexOf(digest string) string { return strings.TrimPrefix(digest, "sha256:") }

func (s *Store) blobPath(digest string) string { return s.path("blobs", hexOf(digest)) }

// hasBlob: a file below blobs/ was verified before it got there. Its size is
// compared again because it costs nothing.
func (s *Store) hasBlob(digest string, size int64) bool {
	info, err := os.Stat(s.blobPath(digest))
	return err == nil && (size < 0 || info.Size() == size)
}

// partial is a download in ingest/, kept over failures and restarts. What is
// there already is hashed again when it is taken up.
type partial struct {
	file *os.File
	hash hash.Hash
	n    int64
	sink io.Writer // sees every byte in order
}

// resume opens the partial download of b and passes what is there to sink.
func (s *Store) resume(b blob, sink io.Writer) (*partial, error) {
	f, err := os.OpenFile(s.path("ingest", hexOf(b.digest)), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open partial download: %w", diskError(err))
	}
	p := &partial{file: f, hash: sha256.New(), sink: sink}
	info, err := f.Stat()
	if err == nil && info.Size() > b.size {
		err = f.Truncate(0)
	}
	if err == nil {
		p.n, err = io.CopyBuffer(io.MultiWriter(p.hash, sink), struct{ io.Reader }{f}, make([]byte, 128<<10))
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("resume download: %w", err)
	}
	return p, nil
}

func (p *partial) Write(b []byte) (int, error) {
	if _, err := p.file.Write(b); err != nil {
		return 0, fmt.Errorf("write download: %w", diskError(err))
	}
	p.hash.Write(b)
	p.n += int64(len(b))
	if _, err := p.sink.Write(b); err != nil {
		return 0, err
	}
	return len(b), nil
}

// errSink: the unpacker has given up; its own error says why.
var errSink = errors.New("unpacking has stopped")

// download brings b into blobs/, from where it was left, while sink sees all
// of it. On return without error the file is verified and durable.
func (s *Store) download(ctx context.Context, src *source, b blob, sink io.Writer, pr *progress) error {
	p, err := s.resume(b, sink)
	if err != nil {
		return err
	}
	defer p.file.Close()
	pr.started.Store(true)
	pr.current.Store(p.n)
	err = s.limits.retry(ctx, func() (bool, error) {
		before := p.n
		err := s.appendFrom(ctx, src, b, p, pr)
		// A server that cuts after each byte makes no progress.
		return p.n-before >= s.limits.minRate, err
	})
	if err != nil {
		return err
	}
	if got := "sha256:" + hex.EncodeToString(p.hash.Sum(nil)); got != b.digest {
		return invalid("layer %s: %s sent content with digest %s", short(b.digest), src.host, short(got))
	}
	crash.At("blob.downloaded")
	return s.publish(p.file, b.digest)
}

// appendFrom sends one request for what is missing of b.
func (s *Store) appendFrom(ctx context.Context, src *source, b blob, p *partial, pr *progress) error {
	if p.n == b.size {
		return nil
	}
	ctx, watch := s.limits.watch(ctx)
	defer watch.stop()
	header := http.Header{}
	if p.n > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-%d", p.n, b.size-1))
	}
	resp, err := src.get(ctx, http.MethodGet, "/blobs/"+b.digest, header)
	if statusOf(err) == http.StatusRequestedRangeNotSatisfiable {
		resp, err = src.get(ctx, http.MethodGet, "/blobs/"+b.digest, nil)
	}
	if err != nil {
		return watch.explain(err)
	}
	defer resp.Body.Close()
	body := watch.reader(resp.Body)
	offset, err := rangeStart(resp)
	if err != nil {
		return err
	}
	if offset > p.n {
		return invalid("layer %s: %s answers from byte %d, asked for %d", short(b.digest), src.host, offset, p.n)
	}
	// Some registries ignore Range and send all: skip what is here already.
	if _, err := io.CopyN(io.Discard, body, p.n-offset); err != nil {
		return watch.explain(err)
	}
	_, err = io.CopyBuffer(counted{p, pr}, io.LimitReader(body, b.size-p.n), make([]byte, 128<<10))
	switch {
	case err != nil:
		return watch.explain(err)
	case p.n < b.size:
		return io.ErrUnexpectedEOF
	}
	if n, _ := body.Read(make([]byte, 1)); n > 0 {
		return invalid("layer %s: %s sends more than its %d bytes", short(b.digest), src.host, b.size)
	}
	return nil
}

// counted hides partial's other methods from io.Copy and counts.
type counted struct {
	p  *partial
	pr *progress
}

func (c counted) Write(b []byte) (int, error) {
	n, err := c.p.Write(b)
	c.pr.current.Add(int64(n))
	return n, err
}

// rangeStart is where a body begins.
func rangeStart(resp *http.Response) (int64, error) {
	if resp.StatusCode != http.StatusPartialContent {
		return 0, nil
	}
	var first int64
	if _, err := fmt.Sscanf(resp.Header.Get("Content-Range"), "bytes %d-", &first); err != nil || first < 0 {
		return 0, fmt.Errorf("bad Content-Range %q", resp.Header.Get("Content-Range"))
	}
	return first, nil
}

// publish makes a verified file of ingest/ durable and visible in blobs/.
func (s *Store) publish(f *os.File, digest string) error {
	if err := f.Sync(); err != nil {
		return fmt.Errorf("write layer %s: %w", short(digest), diskError(err))
	}
	if err := os.Rename(f.Name(), s.blobPath(digest)); err != nil {
		return fmt.Errorf("store layer %s: %w", short(digest), diskError(err))
	}
	crash.At("blob.renamed")
	return syncDir(s.path("blobs"))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", filepath.Base(dir), diskError(err))
	}
	return nil
}
