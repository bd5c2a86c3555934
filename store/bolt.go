package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// schema is the version of the records. A file with a higher one is refused.
const schema = 1

// lockWait bounds Open: another process that has the file open is an error,
// not a hang.
const lockWait = 2 * time.Second

// Bolt is the Backend of one host: a bbolt file.
type Bolt struct{ db *bbolt.DB }

// Open opens or creates the file at path, mode 0600. It fails with ErrNewer,
// without touching the file, if a newer version wrote it.
func Open(path string) (*Bolt, error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockWait, FreelistType: bbolt.FreelistMapType})
	if errors.Is(err, berrors.ErrTimeout) {
		return nil, fmt.Errorf("open %s: another process holds it", path)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	b := &Bolt{db: db}
	if err := b.prepare(); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), db.Close())
	}
	return b, nil
}

func (b *Bolt) prepare() error {
	found := 0
	err := b.db.View(func(tx *bbolt.Tx) error {
		meta := tx.Bucket([]byte(Meta))
		if meta == nil {
			return nil
		}
		var err error
		found, err = strconv.Atoi(string(meta.Get([]byte("schema"))))
		return err
	})
	switch {
	case err != nil:
		return fmt.Errorf("read the schema version: %w", err)
	case found > schema:
		return fmt.Errorf("schema %d: %w", found, ErrNewer)
	case found == schema:
		return nil
	}
	return b.db.Update(func(tx *bbolt.Tx) error {
		for _, name := range buckets {
			if _, err := tx.CreateBucketIfNotExists([]byte(name)); err != nil {
				return err
			}
		}
		return tx.Bucket([]byte(Meta)).Put([]byte("schema"), strconv.AppendInt(nil, schema, 10))
	})
}

// View runs f on one consistent state. f must not wait for anything: pages
// are not reused while it runs.
func (b *Bolt) View(f func(Tx) error) error {
	return b.db.View(func(tx *bbolt.Tx) error { return f(boltTx{tx}) })
}

// Update runs f in a transaction that is durable when Update returns. It costs
// a sync of the disk: who has several changes makes them in one.
func (b *Bolt) Update(f func(Tx) error) error {
	return b.db.Update(func(tx *bbolt.Tx) error { return f(boltTx{tx}) })
}

// Backup writes a consistent copy to path.
func (b *Bolt) Backup(path string) error {
	return b.db.View(func(tx *bbolt.Tx) error { return tx.CopyFile(path, os.FileMode(0o600)) })
}

// Close waits for running transactions.
func (b *Bolt) Close() error { return b.db.Close() }

type boltTx struct{ tx *bbolt.Tx }

func (t boltTx) Get(bucket, key string) []byte { return t.tx.Bucket([]byte(bucket)).Get([]byte(key)) }

func (t boltTx) Put(bucket, key string, value []byte) error {
	return t.tx.Bucket([]byte(bucket)).Put([]byte(key), value)
}

func (t boltTx) Delete(bucket, key string) error {
	return t.tx.Bucket([]byte(bucket)).Delete([]byte(key))
}

func (t boltTx) Each(bucket, prefix string, f func(string, []byte) error) error {
	c := t.tx.Bucket([]byte(bucket)).Cursor()
	for k, v := c.Seek([]byte(prefix)); k != nil && bytes.HasPrefix(k, []byte(prefix)); k, v = c.Next() {
		if err := f(string(k), v); err != nil {
			return err
		}
	}
	return nil
}
