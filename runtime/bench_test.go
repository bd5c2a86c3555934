package runtime

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

const benchCount, benchWidth = 50, 8

// BenchmarkCreateStart creates and starts 50 containers, eight at a time.
func BenchmarkCreateStart(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		bed := newBench(b, "")
		cs := make([]Container, benchCount)
		for i := range cs {
			cs[i] = bed.container(fmt.Sprintf("b%d", i), "sleep")
			cs[i].Netns = "/proc/self/ns/net"
		}
		b.StartTimer()
		parallel(b, benchCount, func(i int) error {
			if err := bed.Create(b.Context(), cs[i]); err != nil {
				return err
			}
			return bed.Start(b.Context(), cs[i].ID)
		})
		b.StopTimer()
		bed.removeAll()
		b.StartTimer()
	}
	b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N*benchCount), "ms/container")
}

// BenchmarkFloor does the same with conmon and the runtime from the command
// line and the same config.json: what no agent can go below.
func BenchmarkFloor(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		bed := newBench(b, "")
		for i := range benchCount {
			bed.bareBundle(fmt.Sprintf("b%d", i))
		}
		b.StartTimer()
		parallel(b, benchCount, func(i int) error { return bed.bareStart(fmt.Sprintf("b%d", i)) })
		b.StopTimer()
		bed.removeAll()
		b.StartTimer()
	}
	b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N*benchCount), "ms/container")
}

func parallel(tb testing.TB, n int, f func(i int) error) {
	tb.Helper()
	var wg sync.WaitGroup
	next := make(chan int)
	for range benchWidth {
		wg.Go(func() {
			for i := range next {
				if err := f(i); err != nil {
					tb.Error(err)
				}
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
}

func (b *bench) removeAll() {
	for i := range benchCount {
		if err := b.Delete(b.tb.Context(), fmt.Sprintf("b%d", i)); err != nil {
			b.tb.Error(err)
		}
	}
}

func (b *bench) bareBundle(id string) {
	b.tb.Helper()
	c := b.container(id, "sleep")
	c.Netns = "/proc/self/ns/net"
	spec, err := b.specs.make(c)
	if err != nil {
		b.tb.Fatal(err)
	}
	config, err := encodeSpec(spec)
	if err != nil {
		b.tb.Fatal(err)
	}
	for _, d := range []string{b.bundle(id), b.logDir(id)} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			b.tb.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(b.bundle(id), "config.json"), config, 0o600); err != nil {
		b.tb.Fatal(err)
	}
}

func (b *bench) bareStart(id string) error {
	t := &task{id: id, bundle: b.bundle(id), rec: b.newRecord(Container{}, b.oci)}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "sync"), os.NewFile(uintptr(fds[1]), "sync")
	defer ours.Close()
	cmd := exec.Command(b.conmon, b.conmonArgs(t, Container{ID: id})...)
	cmd.Dir = t.bundle
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Env = []string{"_OCI_SYNCPIPE=3", "PATH=" + hostPath}
	if err := cmd.Run(); err != nil {
		return err
	}
	theirs.Close()
	if _, err := ours.Read(make([]byte, 4096)); err != nil {
		return err
	}
	return exec.Command(b.oci.path, "--root="+t.rec.RuntimeRoot, "start", id).Run()
}
