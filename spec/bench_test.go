package spec_test

import (
	"fmt"
	"testing"

	"berth/spec"
)

func fiveServices(b *testing.B) string {
	b.Helper()
	return write(b, "-- compose.yaml --\nservices:\n"+repeat(5, func(i int) string {
		return fmt.Sprintf(`  s%d:
    image: "nginx:${TAG:-1.%d}"
    environment: {A: "1", B: two, C: "${HOME}"}
    ports: ["80%02d:80"]
    volumes: ["data:/data", "./conf:/conf:ro"]
    networks: [front]
    healthcheck: {test: [CMD, "true"], interval: 5s}
    restart: always
`, i, i, i)
	})+"volumes: {data: }\nnetworks: {front: }\n")
}

// BenchmarkLoad is the part of `berth up` that happens before the agent is
// asked: the whole no-op `up` must fit in 50 ms.
func BenchmarkLoad(b *testing.B) {
	dir := fiveServices(b)
	for b.Loop() {
		r, err := spec.Load(b.Context(), spec.Options{Dir: dir, Environ: []string{"HOME=/root"}})
		if err != nil || r.Stack == nil {
			b.Fatal(err, r.Diagnostics)
		}
	}
}

func BenchmarkHash(b *testing.B) {
	r, err := spec.Load(b.Context(), spec.Options{Dir: fiveServices(b), Environ: []string{"HOME=/root"}})
	if err != nil || r.Stack == nil {
		b.Fatal(err)
	}
	s := r.Stack.Services["s0"]
	for b.Loop() {
		spec.Hash(&s, spec.Identity{ImageDigest: "sha256:1"})
	}
}
