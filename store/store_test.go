package store_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"

	"berth/store"
	"berth/store/storetest"
)

func TestMemory_Conforms(t *testing.T) {
	storetest.Conformance(t, func(*testing.T) store.Backend { return store.NewMemory() })
}

func TestBolt_Conforms(t *testing.T) {
	storetest.Conformance(t, func(t *testing.T) store.Backend {
		b, err := store.Open(filepath.Join(t.TempDir(), "state.db"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { b.Close() })
		return b
	})
}

func TestOpen_AFileOfANewerVersion_IsRefusedAndUntouched(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	b, err := store.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	b.Close()
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte(store.Meta)).Put([]byte("schema"), []byte("99"))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	before, _ := os.ReadFile(path)
	if _, err := store.Open(path); !errors.Is(err, store.ErrNewer) {
		t.Fatalf("got %v, want ErrNewer", err)
	}
	if after, _ := os.ReadFile(path); string(after) != string(before) {
		t.Error("the refused file was changed")
	}
}

func TestOpen_AFileInUse_FailsInsteadOfHanging(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	b, err := store.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if second, err := store.Open(path); err == nil {
		second.Close()
		t.Fatal("a second Open of a file in use succeeded")
	}
}
