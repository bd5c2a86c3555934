package images

import (
	"errors"
	"testing"
)

// FuzzReference: what is taken as a reference has one canonical form, which is
// taken again and gives itself; the short form means the same.
func FuzzReference(f *testing.F) {
	for _, s := range []string{"nginx", "me/app:v1", "[::1]:5000/a", "a@sha256:00", "localhost/a", "A", "", "a:b:c", "docker.io/library/a", "a//b", "-", "index.docker.io/a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ref, err := ParseReference(s)
		if err != nil {
			if !errors.Is(err, ErrReference) {
				t.Errorf("%q: %v", s, err)
			}
			return
		}
		if again, err := ParseReference(ref); err != nil || again != ref {
			t.Errorf("%q: %q is no fixed point: %q, %v", s, ref, again, err)
		}
		if long, err := ParseReference(Familiar(ref)); err != nil || long != ref {
			t.Errorf("%q: the short form of %q means %q, %v", s, ref, long, err)
		}
	})
}
