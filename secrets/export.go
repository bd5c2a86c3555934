package secrets

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"filippo.io/age"
)

// Entry is one named content in an export.
type Entry struct {
	Kind    string            `json:"kind"`
	Stack   string            `json:"stack,omitempty"`
	Name    string            `json:"name"`
	Labels  map[string]string `json:"labels,omitempty"`
	Content []byte            `json:"content"`
}

// exportFile is the plain form of an export: an age file around JSON.
type exportFile struct {
	Format  string  `json:"format"` // exportFormat
	Entries []Entry `json:"entries"`
}

const (
	exportFormat = "berth contents v1"
	// maxExport bounds the plain form, and maxEntries what an import stores: each
	// entry costs the disk some syncs.
	maxExport  = 256 << 20
	maxEntries = 10_000
	// maxWork is the highest scrypt cost (2^n) of an import: that of Export, a
	// second and 256 MiB. A hostile one may ask for any.
	maxWork = 18
)

// Export writes entries as an age file that the identities of recipients
// (age1…) or the passphrase open. One of the two must be given.
func Export(entries []Entry, recipients []string, passphrase string) ([]byte, error) {
	to, err := exportTo(recipients, passphrase)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(exportFile{exportFormat, entries})
	switch {
	case err != nil:
		return nil, fmt.Errorf("write the entries: %w", err)
	case len(entries) > maxEntries || len(text) > maxExport: // else it could not be brought back
		return nil, fmt.Errorf("%d entries of %d MiB; an import takes at most %d of %d MiB",
			len(entries), len(text)>>20, maxEntries, maxExport>>20)
	}
	var out bytes.Buffer
	w, err := age.Encrypt(&out, to...)
	if err != nil {
		return nil, fmt.Errorf("encrypt: %w", err)
	}
	if _, err := w.Write(text); err != nil {
		return nil, fmt.Errorf("encrypt: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("encrypt: %w", err)
	}
	return out.Bytes(), nil
}

func exportTo(recipients []string, passphrase string) ([]age.Recipient, error) {
	if (len(recipients) == 0) == (passphrase == "") {
		return nil, errors.New("either recipients or a passphrase must be given")
	}
	if passphrase != "" {
		r, err := age.NewScryptRecipient(passphrase)
		if err != nil {
			return nil, errors.New("the passphrase can't be used")
		}
		return []age.Recipient{r}, nil
	}
	to, err := age.ParseRecipients(strings.NewReader(strings.Join(recipients, "\n")))
	if err != nil {
		return nil, fmt.Errorf("recipients: %w", err)
	}
	return to, nil
}

// Import reads an export with an identity (AGE-SECRET-KEY-…) or a passphrase.
// A byte that was changed anywhere is an error.
func Import(data []byte, identity, passphrase string) ([]Entry, error) {
	with, err := importWith(identity, passphrase)
	if err != nil {
		return nil, err
	}
	plain, err := age.Decrypt(bytes.NewReader(data), with...)
	var other *age.NoIdentityMatchError
	switch {
	case errors.As(err, &other):
		return nil, errors.New("it was made for another identity or passphrase")
	case err != nil:
		return nil, errors.New("it is no export, or damaged")
	}
	text, err := readExport(plain, maxExport)
	if err != nil {
		return nil, err
	}
	return parseExport(text)
}

func readExport(r io.Reader, limit int) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, int64(limit)+1))
	switch {
	case err != nil:
		return nil, errors.New("it is damaged, or not whole")
	case len(text) > limit:
		return nil, fmt.Errorf("it is larger than %d MiB", limit>>20)
	}
	return text, nil
}

func importWith(identity, passphrase string) ([]age.Identity, error) {
	if (identity == "") == (passphrase == "") {
		return nil, errors.New("either an identity or a passphrase must be given")
	}
	if identity != "" {
		k, err := parseKeys([]byte(identity))
		if err != nil {
			return nil, errors.New("the identity is none that age makes")
		}
		return k, nil
	}
	id, err := age.NewScryptIdentity(passphrase)
	if err != nil {
		return nil, errors.New("the passphrase can't be used")
	}
	id.SetMaxWorkFactor(maxWork)
	return []age.Identity{id}, nil
}

// parseExport reads the plain form. Its errors tell nothing of what is in it.
func parseExport(text []byte) ([]Entry, error) {
	errFormat := errors.New("it is no export of Berth's contents")
	var f exportFile
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil || f.Format != exportFormat {
		return nil, errFormat
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errFormat
	}
	if len(f.Entries) > maxEntries {
		return nil, fmt.Errorf("it has %d entries; at most %d", len(f.Entries), maxEntries)
	}
	type name struct{ kind, stack, name string }
	seen := map[name]bool{}
	for _, e := range f.Entries {
		n := name{e.Kind, e.Stack, e.Name}
		if seen[n] {
			return nil, fmt.Errorf("it has %.20q %.40q twice", e.Kind, e.Name)
		}
		seen[n] = true
	}
	return f.Entries, nil
}
