package images

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"berth/testbed"

	ctrarchive "github.com/containerd/containerd/v2/pkg/archive"
	"github.com/containerd/containerd/v2/pkg/archive/compression"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// rootfsLike is a layer as a distribution's: n files of a few KiB, that
// compress by about half, ten to a directory.
func rootfsLike(tb testing.TB, n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	es := []entry{dir("usr"), dir("usr/share"), dir("usr/share/doc")}
	for i := range n {
		d := fmt.Sprintf("usr/share/doc/package-%04d", i/10)
		if i%10 == 0 {
			es = append(es, dir(d))
		}
		b := make([]byte, 1000+r.IntN(15000))
		for j := range b {
			b[j] = byte('a' + r.IntN(16))
		}
		es = append(es, file(fmt.Sprintf("%s/file-%d", d, i%10), string(b)))
	}
	return archiveOf(tb, es...)
}

// BenchmarkUnpack compares with containerd on the same archive.
func BenchmarkUnpack(b *testing.B) {
	testbed.NeedKernel(b)
	plain := rootfsLike(b, 5000)
	gz := gzipped(b, plain)
	for what, f := range map[string]func(dir string) error{
		"berth-tar": func(dir string) error {
			_, err := unpack(b.Context(), dir, bytes.NewReader(plain), defaultLimits)
			return err
		},
		"containerd-tar": func(dir string) error {
			h := sha256.New() // the diff id, which unpack has in its price
			_, err := ctrarchive.Apply(b.Context(), dir, io.TeeReader(bytes.NewReader(plain), h), ctrarchive.WithConvertWhiteout(ctrarchive.OverlayConvertWhiteout))
			return err
		},
		"berth": func(dir string) error {
			_, err := unpack(b.Context(), dir, bytes.NewReader(gz), defaultLimits)
			return err
		},
		"containerd": func(dir string) error {
			r, err := compression.DecompressStream(bytes.NewReader(gz))
			if err != nil {
				return err
			}
			defer r.Close()
			_, err = ctrarchive.Apply(b.Context(), dir, r, ctrarchive.WithConvertWhiteout(ctrarchive.OverlayConvertWhiteout))
			return err
		},
	} {
		b.Run(what, func(b *testing.B) {
			b.SetBytes(int64(len(plain)))
			base, cpu := b.TempDir(), time.Duration(0)
			for i := 0; b.Loop(); i++ {
				start := cpuTime(b)
				d := base + "/" + strconv.Itoa(i)
				if err := os.Mkdir(d, 0o755); err != nil {
					b.Fatal(err)
				}
				if err := f(d); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				cpu += cpuTime(b) - start
				if err := os.RemoveAll(d); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
			b.ReportMetric(float64(cpu.Milliseconds())/float64(b.N), "cpu-ms/op")
		})
	}
}

// cpuTime of this process: unlike the clock, it means something on a machine
// that others use too.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkPull is a cold pull of four layers, until all is durable.
func BenchmarkPull(b *testing.B) {
	testbed.NeedKernel(b)
	reg := newRegistry(b)
	var layers []v1.Layer
	var size int64
	for i := range 4 {
		plain := rootfsLike(b, 1000+i)
		size += int64(len(plain))
		layers = append(layers, blobLayer(gzipped(b, plain), digestOf(plain), "application/vnd.oci.image.layer.v1.tar+gzip"))
	}
	reg.push(b, "library/big:v1", imageOf(b, layers...))
	b.SetBytes(size)
	for b.Loop() {
		b.StopTimer()
		s := newStore(b, reg)
		b.StartTimer()
		pull(b, s, "big:v1")
	}
}

// BenchmarkMount is what each container's start pays, with and without
// taking it away again.
func BenchmarkMount(b *testing.B) {
	testbed.NeedKernel(b)
	reg := newRegistry(b)
	s := newStore(b, reg)
	for _, n := range []int{1, 5, 30, 130} {
		var layers []v1.Layer
		for i := range n {
			layers = append(layers, layerOf(b, file(fmt.Sprint(n, i), "x")))
		}
		ref := fmt.Sprintf("n%d:v1", n)
		reg.push(b, "library/"+ref, imageOf(b, layers...))
		img := pull(b, s, ref)
		base := b.TempDir()
		b.Run(fmt.Sprintf("layers=%d", n), func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				d := base + "/" + strconv.Itoa(i)
				if err := os.Mkdir(d, 0o755); err != nil {
					b.Fatal(err)
				}
				m := Mount{Target: d + "/root", Upper: d + "/upper", Work: d + "/work"}
				if err := s.Mount(b.Context(), img.Digest, m); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if err := s.Unmount(m.Target); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}

// BenchmarkPullPresent is what `up` pays per service when nothing changed.
func BenchmarkPullPresent(b *testing.B) {
	reg := newRegistry(b)
	s := newStore(b, reg)
	reg.push(b, "library/web:v1", twoLayers(b))
	pull(b, s, "web:v1")
	for b.Loop() {
		pull(b, s, "web:v1")
	}
}
