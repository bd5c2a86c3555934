package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sync/errgroup"

	"berth/crash"
)

// fetched is a layer whose blob is stored and verified.
type fetched struct {
	record *layerRecord
	// implicit is what a layer takes from those below; see unpacked. With any,
	// the layer has no record in the store yet, and tree is its directory,
	// which the first pull that asks for it may have.
	implicit []string

	mu   sync.Mutex
	tree string
}

// take hands the unpacked tree over, "" if somebody else has it.
func (f *fetched) take() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.tree
	f.tree = ""
	return t
}

// opener connects to where a blob can be had, best first.
type opener func(ctx context.Context, i int) (*source, error)

// errNoSource: the opener has no more.
var errNoSource = errors.New("no more sources")

// fetch brings b into the store and unpacks it, both at once. It must yield
// diffID.
func (s *Store) fetch(ctx context.Context, b blob, diffID string, open opener, pr *progress) (*fetched, error) {
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	var first error
	if s.hasBlob(b.digest, b.size) {
		f, err := s.unpackBlob(ctx, b, diffID, pr)
		if !errors.Is(err, ErrInvalid) {
			return f, err
		}
		// The disk has lost bits, or the layer never was what it claims: the
		// registry has the last word.
		first = err
		if err := s.discard([]string{s.blobPath(b.digest)}); err != nil {
			return nil, err
		}
		pr.unpacking.Store(false)
	}
	for i := 0; ; {
		src, err := open(ctx, i)
		if errors.Is(err, errNoSource) {
			if first == nil {
				first = fmt.Errorf("layer %s: %w", short(b.digest), ErrNotFound)
			}
			return nil, first
		}
		if err == nil {
			var f *fetched
			if f, err = s.stream(ctx, src, b, diffID, pr); err == nil {
				return f, nil
			}
			if errors.Is(err, errStale) {
				continue // once: it is gone now
			}
			err = classify(src.host, err)
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if errors.Is(err, ErrNoSpace) {
			return nil, err
		}
		if first == nil {
			first = err
		}
		i++
	}
}

// errStale: what was resumed was not the begin of the blob. A power cut can
// leave a file with other content than was written. It is gone: start afresh.
var errStale = errors.New("partial download was damaged")

// stream downloads b and unpacks it while it comes. What turns out to be
// invalid doesn't stay behind as a partial download.
func (s *Store) stream(ctx context.Context, src *source, b blob, diffID string, pr *progress) (*fetched, error) {
	ingest := s.path("ingest", hexOf(b.digest))
	info, err := os.Stat(ingest)
	resumed := err == nil && info.Size() > 0
	out, err := s.streamOnce(ctx, src, b, diffID, pr)
	if errors.Is(err, ErrInvalid) {
		if os.Remove(ingest) == nil && resumed {
			return nil, errStale
		}
	}
	if err != nil {
		return nil, err
	}
	return s.keep(out)
}

func (s *Store) streamOnce(ctx context.Context, src *source, b blob, diffID string, pr *progress) (*fetched, error) {
	pipe := newPipe()
	var out *fetched
	var unpackErr error
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		err := s.download(ctx, src, b, pipe, pr)
		pr.unpacking.Store(err == nil)
		pipe.finish(err)
		return err
	})
	g.Go(func() error {
		defer pipe.abandon()
		out, unpackErr = s.unpackTree(ctx, pipe, b, diffID)
		if unpackErr == nil {
			_, unpackErr = io.Copy(io.Discard, pipe)
		}
		return unpackErr
	})
	err := g.Wait()
	var down *sourceError
	if unpackErr != nil && !errors.As(unpackErr, &down) && !errors.Is(unpackErr, context.Canceled) {
		err = unpackErr // its cause, not errSink
	}
	if err != nil {
		if out != nil {
			s.dropTree(out.take())
		}
		return nil, err
	}
	return out, nil
}

// unpackBlob unpacks a blob that is in the store.
func (s *Store) unpackBlob(ctx context.Context, b blob, diffID string, pr *progress) (*fetched, error) {
	f, err := os.Open(s.blobPath(b.digest))
	if err != nil {
		return nil, fmt.Errorf("open layer %s: %w", short(b.digest), err)
	}
	defer f.Close()
	pr.unpacking.Store(true)
	out, err := s.unpackTree(ctx, f, b, diffID)
	if err != nil {
		return nil, err
	}
	return s.keep(out)
}

// unpackTree unpacks into a directory below unpack/ and verifies the diff id.
func (s *Store) unpackTree(ctx context.Context, r io.Reader, b blob, diffID string) (*fetched, error) {
	id := s.newID()
	dir := s.path("unpack", strconv.FormatUint(id, 10))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, fmt.Errorf("unpack layer %s: %w", short(b.digest), diskError(err))
	}
	l := s.limits
	if l.ratio > 0 {
		l.unpacked = min(l.unpacked, max(ratioFrom, b.size*l.ratio))
	}
	u, err := unpack(ctx, dir, r, l)
	if err == nil && diffID != "" && u.diffID != diffID {
		err = invalid("its content has diff id %s, the config says %s", short(u.diffID), short(diffID))
	}
	if err != nil {
		s.dropTree(dir)
		return nil, fmt.Errorf("layer %s: %w", short(b.digest), err)
	}
	crash.At("layer.unpacked")
	return &fetched{
		record: &layerRecord{
			Dir: id, DiffID: u.diffID, Blob: b.digest, BlobSize: b.size,
			TarSize: u.tarSize, Bytes: u.bytes, MediaType: b.mediaType,
		},
		implicit: u.implicit, tree: dir,
	}, nil
}

// keep gives a layer that stands on its own its place; one with implicit
// directories waits for the layers below.
func (s *Store) keep(f *fetched) (*fetched, error) {
	if len(f.implicit) > 0 {
		return f, nil
	}
	return f, s.place(f.record.DiffID, f.record, f.take())
}

// place moves an unpacked tree to layers/ and records it under key. Others see
// it at once; settle makes it durable.
func (s *Store) place(key string, l *layerRecord, tree string) error {
	if err := os.Rename(tree, s.layerDir(l)); err != nil {
		return fmt.Errorf("store layer %s: %w", short(l.DiffID), diskError(err))
	}
	crash.At("layer.renamed")
	s.mu.Lock()
	defer s.mu.Unlock()
	s.layers[key] = l
	return nil
}

func (s *Store) dropTree(dir string) {
	if dir != "" {
		// What can't be deleted now is collected by the next Open.
		_ = s.discard([]string{dir})
	}
}

// pipe carries a download to its unpacker with some slack between the two, so
// that neither waits for each chunk of the other.
type pipe struct {
	chunks chan []byte
	gone   chan struct{} // the reader has left
	once   sync.Once
	err    error // set before chunks is closed
	rest   []byte
}

func newPipe() *pipe {
	return &pipe{chunks: make(chan []byte, 16), gone: make(chan struct{})}
}

func (p *pipe) Write(b []byte) (int, error) {
	select {
	case p.chunks <- append([]byte(nil), b...):
		return len(b), nil
	case <-p.gone:
		return 0, errSink
	}
}

// finish ends the stream; with an error, the reader gets it as a sourceError.
func (p *pipe) finish(err error) {
	if err != nil {
		p.err = &sourceError{err}
	} else {
		p.err = io.EOF
	}
	close(p.chunks)
}

func (p *pipe) abandon() { p.once.Do(func() { close(p.gone) }) }

func (p *pipe) Read(b []byte) (int, error) {
	for len(p.rest) == 0 {
		c, ok := <-p.chunks
		if !ok {
			return 0, p.err
		}
		p.rest = c
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}
