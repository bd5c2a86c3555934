package overlaynet

import (
	"fmt"
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func weighted(weights ...int) []Backend {
	var out []Backend
	for i, w := range weights {
		out = append(out, Backend{TaskID: fmt.Sprint(i), Weight: w})
	}
	return out
}

func TestTurns_Weights_AreSpreadEvenly(t *testing.T) {
	for _, c := range []struct {
		weights []int
		want    []int
	}{
		{nil, []int{}},
		{[]int{7}, []int{0}},
		{[]int{0, 0, 0}, []int{0, 1, 2}},
		{[]int{50, 50}, []int{0, 1}},
		{[]int{1, 3}, []int{1, 0, 1, 1}},
		{[]int{10, 90}, []int{1, 1, 1, 1, 0, 1, 1, 1, 1, 1}},
		{[]int{2, 1, 1}, []int{0, 1, 2, 0}},
	} {
		if diff := cmp.Diff(c.want, turns(weighted(c.weights...))); diff != "" {
			t.Errorf("%v: %s", c.weights, diff)
		}
	}
}

func TestTurns_AnyWeights_EachHasItsShareOfABoundedRound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		weights := rapid.SliceOfN(rapid.IntRange(1, mostWeight), 1, 20).Draw(t, "weights")
		var total int
		for _, w := range weights {
			total += w
		}
		order := turns(weighted(weights...))
		if len(order) > mostTurns+len(weights) {
			t.Fatalf("%d turns", len(order))
		}
		took := map[int]int{}
		for _, i := range order {
			took[i]++
		}
		for i, w := range weights {
			exact := float64(w) * float64(len(order)) / float64(total)
			if n := took[i]; n < 1 || n > 1 && (float64(n) < exact*0.75-1 || float64(n) > exact*1.25+1) {
				t.Fatalf("weight %d of %d: %d of %d turns", w, total, n, len(order))
			}
		}
	})
}

// The kernel counts, it does not throw dice: shares are exact.
func TestSync_Weights_AreTheSharesOfNewConnections(t *testing.T) {
	b := newBed(t)
	path, err := b.m.Attach(t.Context(), "third", []Endpoint{endpoint(netA, 4)})
	if err != nil {
		t.Fatal(err)
	}
	serve(t, path, "third", 80)
	backends := []Backend{backend(netA, "self", 2), backend(netA, "same", 3), backend(netA, "third", 4)}
	for _, c := range []struct {
		weights []int
		rounds  int
		want    map[string]int
	}{
		{[]int{10, 90}, 100, map[string]int{"self": 10, "same": 90}},
		{[]int{0, 0, 2}, 80, map[string]int{"self": 20, "same": 20, "third": 40}},
		{[]int{1, 0, 0}, 30, map[string]int{"self": 10, "same": 10, "third": 10}},
	} {
		list := backends[:len(c.weights)]
		for i, w := range c.weights {
			list[i].Weight = w
		}
		b.rules.Services[0].Backends, b.rules.Ports[0].Backends = list, list
		b.sync(t)
		for _, way := range []struct{ from, to string }{
			{"lan", hostLAN4 + ":8080"}, {"lan", "[" + hostLAN6 + "]:8080"}, {"same", "10.210.0.100:80"}, {"host", "[fd00:a::64]:80"},
		} {
			a := answered{by: map[string]int{}}
			err := in(t, b.paths[way.from], func() error {
				for range c.rounds {
					a.connect(way.to)
				}
				return nil
			})
			if err != nil || !maps.Equal(a.by, c.want) {
				t.Errorf("weights %v, %s from %s: %v, %v; want %v", c.weights, way.to, way.from, a.by, err, c.want)
			}
		}
	}
}
