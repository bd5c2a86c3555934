package images

import (
	"fmt"
	"strings"

	"github.com/distribution/reference"
)

// ParseReference normalises what a user writes to one canonical string, by
// Docker's rules: "nginx" is "docker.io/library/nginx:latest". A reference with
// both tag and digest keeps the digest only, as Docker does: the tag can't
// change what is meant.
func ParseReference(s string) (string, error) {
	named, err := parse(s)
	if err != nil {
		return "", err
	}
	return named.String(), nil
}

// Familiar is the short form of a canonical reference, as a user would write
// it: "nginx:latest". What can't be parsed comes back as it is.
func Familiar(ref string) string {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return ref
	}
	return reference.FamiliarString(named)
}

func parse(s string) (reference.Named, error) {
	if strings.TrimSpace(s) == "" {
		return nil, fmt.Errorf("%w: it is empty; write an image name, such as nginx:1.27", ErrReference)
	}
	named, err := reference.ParseDockerRef(s)
	if err != nil {
		return nil, fmt.Errorf("%w %q: %w", ErrReference, s, err)
	}
	if d, ok := named.(reference.Digested); ok && d.Digest().Algorithm() != "sha256" {
		return nil, fmt.Errorf("%w %q: only sha256 digests are supported", ErrReference, s)
	}
	return named, nil
}

// selector is what follows the repository in a request for a manifest.
func selector(named reference.Named) string {
	if d, ok := named.(reference.Digested); ok {
		return d.Digest().String()
	}
	if t, ok := named.(reference.Tagged); ok {
		return t.Tag()
	}
	return "latest"
}

// wantedDigest is the digest a reference is fixed to, "" for a tag.
func wantedDigest(named reference.Named) string {
	if d, ok := named.(reference.Digested); ok {
		return d.Digest().String()
	}
	return ""
}

// AtDigest is the reference of what s names, at a digest ("sha256:…"): a tag
// may have moved since.
func AtDigest(s, digest string) (string, error) {
	named, err := parse(s)
	if err != nil {
		return "", err
	}
	return reference.TrimNamed(named).Name() + "@" + digest, nil
}

// Pinned is s with its tag, at a digest: what Docker Compose writes for an
// image that is locked.
func Pinned(s, digest string) (string, error) {
	named, err := parse(s)
	if err != nil {
		return "", err
	}
	if wantedDigest(named) != "" {
		return named.String(), nil
	}
	return named.String() + "@" + digest, nil
}
