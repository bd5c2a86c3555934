package spec

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/compose-spec/compose-go/v2/schema"
	"github.com/google/renameio/v2"
)

// Compiling the Compose schema and validating against it is half of a Load.
// Files that were found valid are valid again: `up` of an unchanged stack need
// not ask. What is remembered is a digest of everything that the verdict
// follows from: the schema, the files, the variables that they mention.
//
// Files that lead to others (include, extends) or that the loader treats
// specially (version) are always validated.

// maxKnown is how many valid stacks are remembered; 65 bytes each.
const maxKnown = 64

var (
	mentioned = lazy(`\$\{?([A-Za-z_][A-Za-z0-9_]*)`)
	schemaSum = sync.OnceValue(func() [32]byte { return sha256.Sum256([]byte(schema.Schema)) })
)

// knownKey is the digest of what the verdict on the files follows from; "" for
// files whose verdict is not remembered.
func (l *loading) knownKey() string {
	if l.o.Cache == "" || l.o.NoInterpolate {
		return ""
	}
	sum := schemaSum()
	h := sha256.New()
	h.Write(sum[:])
	add := func(text []byte) {
		part := sha256.Sum256(text)
		h.Write(part[:])
	}
	for _, s := range l.main {
		if len(s.data) > maxRepaired*8 {
			return ""
		}
		for _, word := range []string{"include", "extends", "version"} {
			if bytes.Contains(s.data, []byte(word)) {
				return ""
			}
		}
		add(s.data)
		for _, m := range mentioned().FindAllSubmatch(s.data, -1) {
			value, set := l.in.environ[string(m[1])]
			if !set {
				value = "\x00unset"
			}
			add(m[1])
			add([]byte(value))
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

func (l *loading) knownFile() string { return filepath.Join(l.o.Cache, "valid-stacks") }

// readKnown lists the remembered keys, the newest first. A memory that can't
// be read is none.
func (l *loading) readKnown() []string {
	data, err := os.ReadFile(l.knownFile())
	if err != nil || len(data) > 2*maxKnown*65 {
		return nil
	}
	return strings.Fields(string(data))
}

// known says whether the files were found valid before.
func (l *loading) known() bool {
	l.key = l.knownKey()
	return l.key != "" && slices.Contains(l.readKnown(), l.key)
}

// remember keeps that the files are valid. To forget it costs time, nothing
// else: a failure is no error.
func (l *loading) remember() {
	if l.key == "" {
		return
	}
	keys := slices.DeleteFunc(l.readKnown(), func(k string) bool { return k == l.key })
	keys = append([]string{l.key}, keys[:min(len(keys), maxKnown-1)]...)
	if os.MkdirAll(l.o.Cache, 0o700) == nil {
		_ = renameio.WriteFile(l.knownFile(), []byte(strings.Join(keys, "\n")+"\n"), 0o600)
	}
}
