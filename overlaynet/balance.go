package overlaynet

import "slices"

// mostTurns bounds the turns of one round, and so the rules of a chain, if
// weights differ. A backend has at least one.
const mostTurns = 100

// turns is the order in which backends take new flows, over and over: each as
// often as its weight says, spread evenly (smooth weighted round robin). The
// numbers are indexes of list.
func turns(list []Backend) []int {
	weights := make([]int, len(list))
	for i, b := range list {
		weights[i] = max(b.Weight, 1)
	}
	weights = reduced(weights)
	var total int
	for _, w := range weights {
		total += w
	}
	out := make([]int, 0, total)
	credit := make([]int, len(weights))
	for range total {
		next := 0
		for i, w := range weights {
			credit[i] += w
			if credit[i] > credit[next] {
				next = i
			}
		}
		credit[next] -= total
		out = append(out, next)
	}
	return out
}

// reduced divides weights by what they have in common, and makes them coarser
// if their sum is still too large.
func reduced(weights []int) []int {
	var common, total int
	for _, w := range weights {
		common = gcd(common, w)
		total += w
	}
	out := slices.Clone(weights)
	for i, w := range weights {
		out[i] = w / common
		if total/common > mostTurns {
			out[i] = max(1, (w*mostTurns+total/2)/total)
		}
	}
	return out
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
