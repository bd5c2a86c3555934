// Package storetest is the suite that every store.Backend passes.
package storetest

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"berth/store"
)

// Conformance tests the Backend that open returns. open is called once per
// test, each time with an empty store.
func Conformance(t *testing.T, open func(t *testing.T) store.Backend) {
	t.Run("APutIsReadBack", func(t *testing.T) {
		b := open(t)
		must(t, b.Update(func(tx store.Tx) error {
			return store.Put(tx, store.Stacks, "shop", store.Stack{Name: "shop", Revision: 3})
		}))
		must(t, b.View(func(tx store.Tx) error {
			s, err := store.Get[store.Stack](tx, store.Stacks, "shop")
			if s.Revision != 3 {
				t.Errorf("revision %d, want 3", s.Revision)
			}
			return err
		}))
	})
	t.Run("AnAbsentKeyIsErrNotFound", func(t *testing.T) {
		b := open(t)
		err := b.View(func(tx store.Tx) error {
			_, err := store.Get[store.Stack](tx, store.Stacks, "shop")
			return err
		})
		if !errors.Is(err, store.ErrNotFound) {
			t.Errorf("got %v, want ErrNotFound", err)
		}
	})
	t.Run("AFailedUpdateLeavesNothing", func(t *testing.T) {
		b := open(t)
		boom := errors.New("boom")
		err := b.Update(func(tx store.Tx) error {
			must(t, tx.Put(store.Tasks, "a", []byte("1")))
			return boom
		})
		if !errors.Is(err, boom) {
			t.Fatalf("got %v, want boom", err)
		}
		must(t, b.View(func(tx store.Tx) error {
			if v := tx.Get(store.Tasks, "a"); v != nil {
				t.Errorf("a failed update left %q", v)
			}
			return nil
		}))
	})
	t.Run("EachVisitsAPrefixInOrder", func(t *testing.T) {
		b := open(t)
		must(t, b.Update(func(tx store.Tx) error {
			for _, n := range []uint64{10, 2, 1} {
				if err := tx.Put(store.Revisions, store.RevisionKey("shop", n), fmt.Appendf(nil, "%d", n)); err != nil {
					return err
				}
			}
			return tx.Put(store.Revisions, store.RevisionKey("shop2", 1), []byte("other"))
		}))
		var got []string
		must(t, b.View(func(tx store.Tx) error {
			return tx.Each(store.Revisions, "shop/", func(_ string, v []byte) error {
				got = append(got, string(v))
				return nil
			})
		}))
		if fmt.Sprint(got) != "[1 2 10]" {
			t.Errorf("visited %v, want [1 2 10]", got)
		}
	})
	t.Run("DeleteOfAnAbsentKeyIsSuccess", func(t *testing.T) {
		b := open(t)
		must(t, b.Update(func(tx store.Tx) error { return tx.Delete(store.Tasks, "nobody") }))
	})
	t.Run("ConcurrentUpdatesAllLand", func(t *testing.T) {
		b := open(t)
		var wg sync.WaitGroup
		for i := range 64 {
			wg.Go(func() {
				err := b.Update(func(tx store.Tx) error {
					return tx.Put(store.Tasks, fmt.Sprintf("%03d", i), []byte("x"))
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		n := 0
		must(t, b.View(func(tx store.Tx) error {
			return tx.Each(store.Tasks, "", func(string, []byte) error { n++; return nil })
		}))
		if n != 64 {
			t.Errorf("%d records, want 64", n)
		}
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
