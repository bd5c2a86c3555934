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
	// maxExport bounds what an import reads.
	maxExport = 256 << 20
	// maxWork is the highest scrypt cost (2^n) of an import: a second here.
	maxWork = 20
)

// Export writes entries as an age file that the identities of recipients
// (age1…) or the passphrase open. One of the two must be given.
func Export(entries []Entry, recipients []string, passphrase string) ([]byte, error) {
	to, err := exportTo(recipients, passphrase)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	w, err := age.Encrypt(&out, to...)
	if err != nil {
		return nil, fmt.Errorf("encrypt: %w", err)
	}
	if err := json.NewEncoder(w).Encode(exportFile{exportFormat, entries}); err != nil {
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
	text, err := io.ReadAll(io.LimitReader(plain, maxExport+1))
	switch {
	case err != nil:
		return nil, errors.New("it is damaged, or not whole")
	case len(text) > maxExport:
		return nil, fmt.Errorf("it is larger than %d MiB", maxExport>>20)
	}
	return parseExport(text)
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
	var f exportFile
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil || f.Format != exportFormat {
		return nil, errors.New("it is no export of Berth's contents")
	}
	return f.Entries, nil
}
