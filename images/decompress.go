package images

import (
	"bufio"
	"bytes"
	"errors"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// decompress reads gzip, zstd or plain tar, told apart by their first bytes:
// media types are often wrong. Close frees the decoder, not r.
func decompress(r io.Reader) (io.ReadCloser, error) {
	br := bufio.NewReaderSize(r, 64<<10)
	magic, err := br.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b, 8}):
		return gzip.NewReader(br)
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}), isSkippable(magic):
		// The window is what a hostile frame can make us allocate.
		d, err := zstd.NewReader(br, zstd.WithDecoderMaxWindow(128<<20), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	}
	return io.NopCloser(br), nil
}

// isSkippable: a zstd file may begin with a skippable frame (RFC 8878, 3.1.2).
func isSkippable(magic []byte) bool {
	return len(magic) == 4 && magic[0]&0xf0 == 0x50 && bytes.Equal(magic[1:], []byte{0x2a, 0x4d, 0x18})
}

// mediaTypeOf says what a layer that begins with magic is called.
func mediaTypeOf(magic []byte) string {
	const tar = "application/vnd.oci.image.layer.v1.tar"
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		return tar + "+gzip"
	case bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}), len(magic) >= 4 && isSkippable(magic[:4]):
		return tar + "+zstd"
	}
	return tar
}
