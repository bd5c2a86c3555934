package store

import (
	"maps"
	"slices"
	"strings"
	"sync"
)

// Memory is a Backend that forgets, for tests.
type Memory struct {
	mu   sync.RWMutex
	data map[string]map[string][]byte
}

// NewMemory returns an empty store.
func NewMemory() *Memory {
	m := &Memory{data: map[string]map[string][]byte{}}
	for _, b := range buckets {
		m.data[b] = map[string][]byte{}
	}
	return m
}

// View runs f under a read lock.
func (m *Memory) View(f func(Tx) error) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return f(memoryTx(m.data))
}

// Update runs f on a copy and keeps it if f succeeds.
func (m *Memory) Update(f func(Tx) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	next := make(map[string]map[string][]byte, len(m.data))
	for b, records := range m.data {
		next[b] = maps.Clone(records)
	}
	if err := f(memoryTx(next)); err != nil {
		return err
	}
	m.data = next
	return nil
}

// Close does nothing.
func (m *Memory) Close() error { return nil }

type memoryTx map[string]map[string][]byte

func (t memoryTx) Get(bucket, key string) []byte { return t[bucket][key] }

func (t memoryTx) Put(bucket, key string, value []byte) error {
	t[bucket][key] = slices.Clone(value)
	return nil
}

func (t memoryTx) Delete(bucket, key string) error {
	delete(t[bucket], key)
	return nil
}

func (t memoryTx) Each(bucket, prefix string, f func(string, []byte) error) error {
	for _, k := range slices.Sorted(maps.Keys(t[bucket])) {
		if !strings.HasPrefix(k, prefix) {
			continue
		}
		if err := f(k, t[bucket][k]); err != nil {
			return err
		}
	}
	return nil
}
