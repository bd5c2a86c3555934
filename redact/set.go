package redact

import (
	"bytes"
	"hash/maphash"
	"slices"
	"strings"
	"sync"
)

const (
	// MinValue is the least length of a value that is redacted, in bytes.
	MinValue = 8
	// Mark stands where a value was.
	Mark = "<redacted>"

	// minLine is the least length of a line that counts by itself, unless it looks
	// like a password; maxLines bounds them, of the first lines of a value.
	minLine  = 16
	maxLines = 1 << 10
	// maxForms is the size above which a value is only known as it is and quoted,
	// maxTwice that above which it is not also known quoted twice.
	maxForms = 64 << 10
	maxTwice = 1 << 10
)

// Set is a set of values. The zero Set is empty and ready, a nil one stays
// empty. It is safe for concurrent use.
type Set struct {
	mu    sync.RWMutex
	seed  maphash.Seed
	known map[uint64]bool // the values, by hash
	names map[string]bool

	// forms are all forms of the values by their first MinValue bytes, the
	// longest first; maybe tells cheaply that there are none.
	forms map[uint64][]form
	maybe []uint64
}

// form is one way in which a value may be written.
type form struct {
	size int
	sum  uint64
	name bool // part of a name: it stays
}

// maybeBits is the number of bits of Set.maybe: 32 KiB.
const maybeBits = 18

func slot(first uint64) uint64 { return first * 0x9E3779B97F4A7C15 >> (64 - maybeBits) }

// Add learns values. White space around them is not part of them.
func (s *Set) Add(values ...[]byte) {
	if s == nil {
		return
	}
	for _, v := range values {
		v = bytes.TrimSpace(v)
		if len(v) < MinValue || s.has(v) {
			continue
		}
		texts := forms(string(v))
		s.mu.Lock()
		s.begin()
		s.known[maphash.Bytes(s.seed, v)] = true
		for _, text := range texts {
			s.add(text)
		}
		s.mu.Unlock()
	}
}

func (s *Set) has(v []byte) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.known != nil && s.known[maphash.Bytes(s.seed, v)]
}

func (s *Set) begin() {
	if s.known == nil {
		s.seed, s.known, s.forms = maphash.MakeSeed(), map[uint64]bool{}, map[uint64][]form{}
		s.maybe = make([]uint64, 1<<maybeBits/64)
	}
}

func (s *Set) add(text string) {
	if len(text) < MinValue {
		return
	}
	f := form{size: len(text), sum: maphash.String(s.seed, text)}
	for name := range s.names {
		f.name = f.name || strings.Contains(name, text)
	}
	first := load(text, 0)
	list := s.forms[first]
	at, found := slices.BinarySearchFunc(list, f, func(a, b form) int {
		if a.size != b.size {
			return b.size - a.size
		}
		return compare(a.sum, b.sum)
	})
	if found {
		return
	}
	s.forms[first] = slices.Insert(list, at, f)
	i := slot(first)
	s.maybe[i/64] |= 1 << (i % 64)
}

func compare(a, b uint64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// Name makes names known, that are shown whatever the values are.
func (s *Set) Name(names ...string) {
	if s == nil {
		return
	}
	for _, name := range names {
		if len(name) < MinValue {
			continue
		}
		s.mu.Lock()
		if !s.names[name] {
			if s.names == nil {
				s.names = map[string]bool{}
			}
			s.names[name] = true
			each(s, name, func(_ int, f *form) bool {
				f.name = true
				return true // shorter ones may be in it as well
			})
		}
		s.mu.Unlock()
	}
}

// Len is the number of values.
func (s *Set) Len() int {
	if s == nil {
		return 0
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.known)
}

// Reset forgets all values but these; names stay.
func (s *Set) Reset(values ...[]byte) {
	if s == nil {
		return
	}
	next := &Set{names: s.namesNow()}
	next.Add(values...)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seed, s.known, s.forms, s.maybe = next.seed, next.known, next.forms, next.maybe
}

func (s *Set) namesNow() map[string]bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := make(map[string]bool, len(s.names))
	for name := range s.names {
		out[name] = true
	}
	return out
}

// Text is text without values.
func (s *Set) Text(text string) string {
	spans := find(s, text)
	if len(spans) == 0 {
		return text
	}
	return string(replaced(text, spans))
}

// Bytes is Text for bytes; without a value in them they are returned as they
// are.
func (s *Set) Bytes(text []byte) []byte {
	spans := find(s, text)
	if len(spans) == 0 {
		return text
	}
	return replaced(text, spans)
}

type span struct{ from, to int }

func replaced[T ~string | ~[]byte](text T, spans []span) []byte {
	out := make([]byte, 0, len(text))
	at := 0
	for _, p := range spans {
		out = append(out, text[at:p.from]...)
		out = append(out, Mark...)
		at = p.to
	}
	return append(out, text[at:]...)
}

// find gives where values are in text, in order and apart.
func find[T ~string | ~[]byte](s *Set, text T) []span {
	if s == nil || len(text) < MinValue {
		return nil
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	var out []span
	each(s, text, func(at int, f *form) bool {
		if f.name {
			return true
		}
		if n := len(out); n > 0 && at < out[n-1].to {
			out[n-1].to = max(out[n-1].to, at+f.size)
		} else {
			out = append(out, span{at, at + f.size})
		}
		return false
	})
	return out
}

// each calls found for the forms in text, in order, at one place the longest
// first, until it returns false there. The caller holds mu.
func each[T ~string | ~[]byte](s *Set, text T, found func(at int, f *form) bool) {
	if len(s.known) == 0 || len(text) < MinValue {
		return
	}
	first := load(text, 0) << 8
	for i := 0; i+MinValue <= len(text); i++ {
		first = first>>8 | uint64(text[i+MinValue-1])<<56
		bit := slot(first)
		if s.maybe[bit/64]>>(bit%64)&1 == 0 {
			continue
		}
		list := s.forms[first]
		for j := range list {
			f := &list[j]
			if i+f.size <= len(text) && maphash.String(s.seed, string(text[i:i+f.size])) == f.sum && !found(i, f) {
				break
			}
		}
	}
}

func load[T ~string | ~[]byte](text T, at int) (out uint64) {
	for i := range MinValue {
		out |= uint64(text[at+i]) << (8 * i)
	}
	return out
}
