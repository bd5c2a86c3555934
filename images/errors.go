package images

import (
	"errors"
	"fmt"
	"syscall"
)

// Sentinels on which a caller decides. The errors that wrap them are one line:
// the reference, what failed, what to do.
var (
	// ErrNotFound: the image is neither in the store nor where it was asked for.
	ErrNotFound = errors.New("image not found")
	// ErrInUse: the image is pinned, or known by more names than the one given.
	ErrInUse = errors.New("image in use")
	// ErrUnauthorized: the registry wants other credentials.
	ErrUnauthorized = errors.New("not authorized")
	// ErrUnreachable: no answer, or only server errors, after all retries.
	ErrUnreachable = errors.New("registry unreachable")
	// ErrNoSpace: the file system of the store is full.
	ErrNoSpace = errors.New("no space left for images")
	// ErrPlatform: the image isn't made for the platform asked for.
	ErrPlatform = errors.New("no image for the platform")
	// ErrInvalid: a registry or an archive sent what breaks the OCI rules or a
	// limit of ours: wrong digest, oversized manifest, escaping tar entry.
	ErrInvalid = errors.New("invalid image")
	// ErrReference: the reference can't be parsed.
	ErrReference = errors.New("invalid reference")
	// ErrAmbiguous: a prefix of a digest fits several images.
	ErrAmbiguous = errors.New("ambiguous image id")
)

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrInvalid, fmt.Errorf(format, args...))
}

// diskError gives a full disk its sentinel and leaves other errors alone.
func diskError(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: free space or run `berth image prune`: %w", ErrNoSpace, err)
	}
	return err
}
