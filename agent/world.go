package agent

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"berth/crash"
	"berth/redact"
	"berth/store"
)

// world is the agent's memory of its records, equal to the store. Records are
// immutable: a change replaces the pointer, so a reader keeps what it got
// without a lock.
//
// Two ways to change: commit is durable when it returns and is for intent;
// note is for what can be observed again, and is written by the next flush.
type world struct {
	db     store.Backend
	redact *redact.Set

	mu        sync.RWMutex
	stacks    map[string]*store.Stack
	revisions map[string]*store.Revision // the wanted one of each stack
	tasks     map[string]*store.Task
	networks  map[string]*store.Network
	vips      map[string]*store.VIP
	dirty     map[string]bool // tasks noted since the last flush

	flushMu sync.Mutex // one writer of the store at a time; before mu
}

// cleanTask and its like take values of secrets out of what a record says in
// words; what a user has written in the file stays: a task is made of it.
func (w *world) cleanTask(t *store.Task) {
	for _, text := range []*string{&t.Reason, &t.LastLine, &t.HookFailed} {
		*text = w.redact.Text(*text)
	}
}

func (w *world) cleanRevision(r *store.Revision) { r.Reason = w.redact.Text(r.Reason) }

func (w *world) cleanStack(s *store.Stack) {
	if s.Rollout == nil {
		return
	}
	if reason := w.redact.Text(s.Rollout.Reason); reason != s.Rollout.Reason {
		next := *s.Rollout
		next.Reason = reason
		s.Rollout = &next
	}
}

// openWorld reads all records.
func openWorld(db store.Backend) (*world, error) {
	w := &world{
		db: db, stacks: map[string]*store.Stack{}, revisions: map[string]*store.Revision{},
		tasks: map[string]*store.Task{}, networks: map[string]*store.Network{},
		vips: map[string]*store.VIP{}, dirty: map[string]bool{},
	}
	err := db.View(func(tx store.Tx) error {
		if err := load(tx, store.Stacks, w.stacks); err != nil {
			return err
		}
		for name, s := range w.stacks {
			r, err := store.Get[store.Revision](tx, store.Revisions, store.RevisionKey(name, s.Revision))
			if err != nil {
				return err
			}
			w.revisions[name] = &r
		}
		if err := load(tx, store.Tasks, w.tasks); err != nil {
			return err
		}
		if err := load(tx, store.Networks, w.networks); err != nil {
			return err
		}
		return load(tx, store.VIPs, w.vips)
	})
	if err != nil {
		return nil, fmt.Errorf("read the records: %w", err)
	}
	return w, nil
}

func load[T any](tx store.Tx, bucket string, into map[string]*T) error {
	return store.Each(tx, bucket, "", func(key string, v T) error {
		into[key] = &v
		return nil
	})
}

// change collects what one commit alters. It sees its own changes.
type change struct {
	w         *world
	stacks    map[string]*store.Stack
	revisions map[string]*store.Revision
	tasks     map[string]*store.Task
	networks  map[string]*store.Network
	vips      map[string]*store.VIP
	annotated []annotation
	// kept are the stacks whose revisions are pruned, with those to keep beside
	// the newest.
	kept map[string][]uint64
}

// annotation is how the rollout of a revision ended.
type annotation struct {
	stack         string
	revision      uint64
	state, reason string
}

// annotate notes how a revision's rollout ended, wherever it is kept.
func (c *change) annotate(stack string, n uint64, state, reason string) {
	reason = c.w.redact.Text(reason)
	c.annotated = append(c.annotated, annotation{stack, n, state, reason})
	if r := c.w.revisions[stack]; r != nil && r.Number == n && c.revisions[stack] == nil {
		next := *r
		next.State, next.Reason = state, reason
		c.putRevision(stack, next)
	}
}

// prune deletes all revisions of a stack but the newest ones and keep.
func (c *change) prune(stack string, keep ...uint64) { c.kept[stack] = keep }

func (c *change) putStack(s store.Stack) { c.w.cleanStack(&s); c.stacks[s.Name] = &s }

func (c *change) putRevision(n string, r store.Revision) { c.w.cleanRevision(&r); c.revisions[n] = &r }
func (c *change) putTask(t store.Task)                   { c.w.cleanTask(&t); c.tasks[t.ID] = &t }
func (c *change) putNetwork(n store.Network)             { c.networks[n.Name] = &n }
func (c *change) putVIP(v store.VIP)                     { c.vips[store.VIPKey(v.Network, v.Stack, v.Service)] = &v }
func (c *change) dropTask(id string)                     { c.tasks[id] = nil }

// forgetTask takes back a task that this change put, as if it never had.
func (c *change) forgetTask(id string) { delete(c.tasks, id) }

func (c *change) dropNetwork(name string) { c.networks[name] = nil }
func (c *change) dropVIP(key string)      { c.vips[key] = nil }

func (c *change) network(name string) *store.Network {
	if n, ok := c.networks[name]; ok {
		return n
	}
	return c.w.networks[name]
}

// addresses calls f for every address in use on a network, own changes
// included, but for those of tasks that except holds of.
func (c *change) addresses(network string, except func(*store.Task) bool, f func(store.Endpoint)) {
	each := func(t *store.Task) {
		if except(t) {
			return
		}
		for _, e := range t.Endpoints {
			if e.Network == network {
				f(e)
			}
		}
	}
	for id, t := range c.w.tasks {
		if _, ok := c.tasks[id]; !ok && t.State != store.StateRemoved {
			each(t)
		}
	}
	for _, t := range c.tasks {
		if t != nil && t.State != store.StateRemoved {
			each(t)
		}
	}
	vips := maps.Clone(c.w.vips)
	maps.Copy(vips, c.vips)
	for _, v := range vips {
		if v != nil && v.Network == network {
			f(store.Endpoint{Network: network, IPv4: v.IPv4, IPv6: v.IPv6})
		}
	}
}

// commit runs f with the records locked and makes its changes durable. When f
// or the store fails nothing changes.
func (w *world) commit(f func(*change) error) error {
	w.flushMu.Lock() // or an older record that flush holds would follow ours
	defer w.flushMu.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	c := &change{
		w: w, stacks: map[string]*store.Stack{}, revisions: map[string]*store.Revision{},
		tasks: map[string]*store.Task{}, networks: map[string]*store.Network{}, vips: map[string]*store.VIP{},
		kept: map[string][]uint64{},
	}
	if err := f(c); err != nil {
		return err
	}
	if err := w.db.Update(c.write); err != nil {
		return fmt.Errorf("write the records: %w", err)
	}
	merge(w.stacks, c.stacks)
	merge(w.revisions, c.revisions)
	merge(w.tasks, c.tasks)
	merge(w.networks, c.networks)
	merge(w.vips, c.vips)
	return nil
}

func (c *change) write(tx store.Tx) error {
	for name, r := range c.revisions {
		if r == nil {
			continue
		}
		if err := store.Put(tx, store.Revisions, store.RevisionKey(name, r.Number), r); err != nil {
			return err
		}
	}
	for _, n := range c.annotated {
		if err := n.write(tx); err != nil {
			return err
		}
	}
	for stack, keep := range c.kept {
		if err := pruneRevisions(tx, stack, keep); err != nil {
			return err
		}
	}
	if err := writeAll(tx, store.Stacks, c.stacks); err != nil {
		return err
	}
	if err := writeAll(tx, store.Tasks, c.tasks); err != nil {
		return err
	}
	if err := writeAll(tx, store.Networks, c.networks); err != nil {
		return err
	}
	return writeAll(tx, store.VIPs, c.vips)
}

func (n annotation) write(tx store.Tx) error {
	key := store.RevisionKey(n.stack, n.revision)
	r, err := store.Get[store.Revision](tx, store.Revisions, key)
	if errors.Is(err, store.ErrNotFound) {
		return nil // it was pruned
	}
	if err != nil {
		return err
	}
	r.State, r.Reason = n.state, n.reason
	return store.Put(tx, store.Revisions, key, r)
}

// keptRevisions is how many revisions of a stack are kept, the newest
// included (DESIGN.md, Rollout).
const keptRevisions = 5

func pruneRevisions(tx store.Tx, stack string, keep []uint64) error {
	var keys []string
	err := tx.Each(store.Revisions, stack+"/", func(key string, _ []byte) error {
		keys = append(keys, key)
		return nil
	})
	if err != nil {
		return err
	}
	for _, key := range keys[:max(0, len(keys)-keptRevisions)] {
		if slices.ContainsFunc(keep, func(n uint64) bool { return key == store.RevisionKey(stack, n) }) {
			continue
		}
		if err := tx.Delete(store.Revisions, key); err != nil {
			return err
		}
	}
	return nil
}

func writeAll[T any](tx store.Tx, bucket string, records map[string]*T) error {
	for key, v := range records {
		var err error
		if v == nil {
			err = tx.Delete(bucket, key)
		} else {
			err = store.Put(tx, bucket, key, v)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func merge[T any](into, from map[string]*T) {
	for key, v := range from {
		if v == nil {
			delete(into, key)
		} else {
			into[key] = v
		}
	}
}

// forgetStack deletes the records of a stack that has nothing left.
func (w *world) forgetStack(name string) error {
	w.flushMu.Lock()
	defer w.flushMu.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	err := w.db.Update(func(tx store.Tx) error {
		var keys []string
		err := tx.Each(store.Revisions, name+"/", func(key string, _ []byte) error {
			keys = append(keys, key)
			return nil
		})
		if err != nil {
			return err
		}
		for _, key := range keys {
			if err := tx.Delete(store.Revisions, key); err != nil {
				return err
			}
		}
		for id, t := range w.tasks {
			if t.Stack == name {
				if err := tx.Delete(store.Tasks, id); err != nil {
					return err
				}
			}
		}
		for key, v := range w.vips {
			if v.Stack == name {
				if err := tx.Delete(store.VIPs, key); err != nil {
					return err
				}
			}
		}
		return tx.Delete(store.Stacks, name)
	})
	if err != nil {
		return fmt.Errorf("forget stack %s: %w", name, err)
	}
	delete(w.stacks, name)
	delete(w.revisions, name)
	maps.DeleteFunc(w.tasks, func(_ string, t *store.Task) bool { return t.Stack == name })
	maps.DeleteFunc(w.vips, func(_ string, v *store.VIP) bool { return v.Stack == name })
	return nil
}

// note changes a task in memory; the next flush writes it. It returns the
// changed record, or nil if there is no such task.
func (w *world) note(id string, f func(*store.Task)) *store.Task {
	w.mu.Lock()
	defer w.mu.Unlock()
	t, ok := w.tasks[id]
	if !ok {
		return nil
	}
	next := *t
	f(&next)
	w.cleanTask(&next)
	w.tasks[id] = &next
	w.dirty[id] = true
	return &next
}

// flush writes what was noted.
func (w *world) flush() error {
	w.flushMu.Lock()
	defer w.flushMu.Unlock()
	w.mu.Lock()
	dirty := w.dirty
	w.dirty = map[string]bool{}
	records := make(map[string]*store.Task, len(dirty))
	for id := range dirty {
		if t, ok := w.tasks[id]; ok {
			records[id] = t
		}
	}
	w.mu.Unlock()
	if len(records) == 0 {
		return nil
	}
	crash.At("notes.flush")
	err := w.db.Update(func(tx store.Tx) error {
		for id, t := range records {
			if tx.Get(store.Tasks, id) == nil {
				continue // forgotten since
			}
			if err := store.Put(tx, store.Tasks, id, t); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		w.mu.Lock()
		maps.Copy(w.dirty, dirty)
		w.mu.Unlock()
		return fmt.Errorf("write the records of tasks: %w", err)
	}
	crash.At("notes.flushed")
	return nil
}

func (w *world) stack(name string) (*store.Stack, *store.Revision) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.stacks[name], w.revisions[name]
}

func (w *world) task(id string) *store.Task {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.tasks[id]
}

// view is one consistent look at all records.
type view struct {
	stacks    map[string]*store.Stack
	revisions map[string]*store.Revision
	tasks     []*store.Task // by stack, service, slot, attempt
	networks  map[string]*store.Network
	vips      map[string]*store.VIP
}

func (w *world) view() view {
	w.mu.RLock()
	v := view{
		stacks: maps.Clone(w.stacks), revisions: maps.Clone(w.revisions),
		tasks:    slices.Collect(maps.Values(w.tasks)),
		networks: maps.Clone(w.networks), vips: maps.Clone(w.vips),
	}
	w.mu.RUnlock()
	slices.SortFunc(v.tasks, compareTasks)
	return v
}

// compareTasks orders by stack, service, slot and attempt.
func compareTasks(a, b *store.Task) int {
	return cmp.Or(
		cmp.Compare(a.Stack, b.Stack),
		cmp.Compare(a.Service, b.Service),
		cmp.Compare(a.Slot, b.Slot),
		cmp.Compare(a.Attempt, b.Attempt),
	)
}
