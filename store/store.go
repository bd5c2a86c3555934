package store

import (
	"encoding/json"
	"errors"
	"fmt"
)

// Buckets.
const (
	Stacks    = "stacks"    // Stack by name
	Revisions = "revisions" // Revision by "stack/%08d"
	Tasks     = "tasks"     // Task by id
	Networks  = "networks"  // Network by name
	VIPs      = "vips"      // VIP by "network/stack/service"
	Contents  = "contents"  // Content by ContentKey
	Meta      = "meta"      // schema, boot, node
)

var buckets = []string{Stacks, Revisions, Tasks, Networks, VIPs, Contents, Meta}

// ErrNotFound is the answer to a key that has no record.
var ErrNotFound = errors.New("no such record")

// ErrNewer is the answer to a file that a newer Berth wrote.
var ErrNewer = errors.New("written by a newer version of Berth")

// Tx is a transaction. It must not be used after its function has returned,
// and byte slices that it gives must not be kept.
type Tx interface {
	Get(bucket, key string) []byte // nil: no record
	Put(bucket, key string, value []byte) error
	Delete(bucket, key string) error // of an absent key is success
	// Each calls f for keys with the prefix in ascending order until f fails.
	Each(bucket, prefix string, f func(key string, value []byte) error) error
}

// Backend runs transactions, one writer at a time. f must only act on its Tx.
type Backend interface {
	View(f func(Tx) error) error
	Update(f func(Tx) error) error
	Close() error
}

// Get decodes the record under key into a T.
func Get[T any](tx Tx, bucket, key string) (T, error) {
	var v T
	data := tx.Get(bucket, key)
	if data == nil {
		return v, fmt.Errorf("%s %q: %w", bucket, key, ErrNotFound)
	}
	if err := json.Unmarshal(data, &v); err != nil {
		return v, fmt.Errorf("decode %s %q: %w", bucket, key, err)
	}
	return v, nil
}

// Put encodes v as the record under key.
func Put[T any](tx Tx, bucket, key string, v T) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s %q: %w", bucket, key, err)
	}
	if err := tx.Put(bucket, key, data); err != nil {
		return fmt.Errorf("write %s %q: %w", bucket, key, err)
	}
	return nil
}

// Each decodes every record whose key has the prefix, in order of the keys.
func Each[T any](tx Tx, bucket, prefix string, f func(key string, v T) error) error {
	return tx.Each(bucket, prefix, func(key string, data []byte) error {
		var v T
		if err := json.Unmarshal(data, &v); err != nil {
			return fmt.Errorf("decode %s %q: %w", bucket, key, err)
		}
		return f(key, v)
	})
}
