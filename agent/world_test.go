package agent

import (
	"bytes"
	"errors"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"berth/store"
)

// stored reads the store as openWorld does.
func stored(t interface{ Fatal(...any) }, db store.Backend) *world {
	w, err := openWorld(db)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func sameRecords(x, y *world) bool {
	return bytes.Equal(encoded(x.stacks), encoded(y.stacks)) &&
		bytes.Equal(encoded(x.revisions), encoded(y.revisions)) &&
		bytes.Equal(encoded(x.tasks), encoded(y.tasks)) &&
		bytes.Equal(encoded(x.networks), encoded(y.networks)) &&
		bytes.Equal(encoded(x.vips), encoded(y.vips))
}

func TestWorld_WhateverFails_MemoryAndStoreAreEqualAfterAFlush(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c := newCalls()
		db := &brittle{store.NewMemory(), c}
		w := stored(rt, db)
		id := rapid.SampledFrom([]string{"a", "b", "c"})
		for range rapid.IntRange(1, 30).Draw(rt, "steps") {
			broken := rapid.Bool().Draw(rt, "broken")
			if broken {
				c.fail("write", errDisk)
			}
			name := id.Draw(rt, "name")
			var err error
			switch rapid.IntRange(0, 5).Draw(rt, "step") {
			case 0:
				err = w.commit(func(c *change) error {
					c.putStack(store.Stack{Name: name, Revision: 1})
					c.putRevision(name, store.Revision{Number: 1})
					c.putTask(store.Task{ID: name + "1", Stack: name})
					c.putNetwork(store.Network{Name: name})
					c.putVIP(store.VIP{Network: name, Stack: name, Service: "s"})
					return nil
				})
			case 1:
				err = w.commit(func(c *change) error {
					c.dropTask(name + "1")
					c.dropNetwork(name)
					c.dropVIP(store.VIPKey(name, name, "s"))
					return nil
				})
			case 2:
				err = w.forgetStack(name)
			case 3:
				w.note(name+"1", func(t *store.Task) { t.Restarts++ })
			case 4:
				err = w.flush()
			case 5:
				err = w.commit(func(c *change) error {
					c.putStack(store.Stack{Name: name, Revision: 9})
					return errors.New("changed its mind")
				})
				if err == nil {
					rt.Fatal("an error of the change was swallowed")
				}
				err = nil
			}
			if !broken && err != nil {
				rt.Fatal(err)
			}
			c.heal("write")
		}
		if err := w.flush(); err != nil {
			rt.Fatal(err)
		}
		if again := stored(rt, db); !sameRecords(w, again) {
			rt.Fatalf("memory %+v\nstore %+v", w.view(), again.view())
		}
	})
}

func TestWorld_NotesCommitsAndFlushesAtTheSameTime_EndEqual(t *testing.T) {
	db := store.NewMemory()
	w := stored(t, db)
	err := w.commit(func(c *change) error {
		c.putTask(store.Task{ID: "a"})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for _, f := range []func(){
		func() { w.note("a", func(t *store.Task) { t.Restarts++ }) },
		func() {
			_ = w.commit(func(c *change) error {
				next := *c.w.tasks["a"]
				next.Failures++
				c.putTask(next)
				return nil
			})
		},
		func() { _ = w.flush() },
	} {
		wg.Go(func() {
			for range 500 {
				f()
			}
		})
	}
	wg.Wait()
	if err := w.flush(); err != nil {
		t.Fatal(err)
	}
	if !sameRecords(w, stored(t, db)) {
		t.Error("memory and store differ")
	}
	if got := w.task("a"); got.Restarts != 500 || got.Failures != 500 {
		t.Errorf("restarts %d, failures %d: changes were lost", got.Restarts, got.Failures)
	}
}
