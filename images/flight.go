package images

import (
	"context"
	"sync"
)

// flight runs one job per key and lets everybody who asks for the key wait for
// it. Other than x/sync/singleflight, the job isn't tied to whoever came first:
// it is cancelled when the last one waiting has left.
type flight[V any] struct {
	mu   sync.Mutex
	jobs map[string]*job[V]
}

type job[V any] struct {
	progress *progress
	done     chan struct{}
	value    V
	err      error

	waiting int // guarded by flight.mu
	cancel  context.CancelFunc
}

// join finds the job of key or starts it. leave must be called once.
func (f *flight[V]) join(key string, run func(context.Context, *progress) (V, error)) *job[V] {
	f.mu.Lock()
	defer f.mu.Unlock()
	if j, ok := f.jobs[key]; ok {
		j.waiting++
		return j
	}
	ctx, cancel := context.WithCancel(context.Background())
	j := &job[V]{progress: &progress{}, done: make(chan struct{}), waiting: 1, cancel: cancel}
	if f.jobs == nil {
		f.jobs = map[string]*job[V]{}
	}
	f.jobs[key] = j
	go func() {
		j.value, j.err = run(ctx, j.progress)
		f.forget(key, j)
		close(j.done)
		cancel()
	}()
	return j
}

// leave gives up waiting; with the last one the job is cancelled. It returns
// only when a cancelled job has stopped touching its files. Who joins in that
// short while gets context.Canceled from the job and joins again.
func (f *flight[V]) leave(key string, j *job[V]) {
	f.mu.Lock()
	j.waiting--
	last := j.waiting == 0
	f.mu.Unlock()
	if last {
		j.cancel()
		<-j.done
		f.forget(key, j)
	}
}

func (f *flight[V]) forget(key string, j *job[V]) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.jobs[key] == j {
		delete(f.jobs, key)
	}
}
