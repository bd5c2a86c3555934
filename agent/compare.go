package agent

import (
	"cmp"

	"berth/store"
)

// compareTasks orders by stack, service, slot and attempt.
func compareTasks(a, b *store.Task) int {
	return cmp.Or(
		cmp.Compare(a.Stack, b.Stack),
		cmp.Compare(a.Service, b.Service),
		cmp.Compare(a.Slot, b.Slot),
		cmp.Compare(a.Attempt, b.Attempt),
	)
}
