// Package crash names the moments at which a power cut or a kill -9 of the
// agent would hurt most: between two steps that last.
//
//	err := db.Update(…)
//	crash.At("task.recorded")
//
// A point lies before or after whatever outlives the process: a commit, a
// rename, a mount, a link, a container, a signal. Its name is lower case,
// NOUN.WHAT, unique in the repository and a literal, so that a test can list
// all points from the source and see to it that the agent is killed at each
// (e2e/crash_points_test.go).
//
// In a normal build At is empty: the compiler inlines it, and not even the
// names are in the program. Built with `-tags crashpoints`, the environment
// variable BERTH_CRASH=NAME[:N] makes the N-th arrival at the point, the first
// without :N, end the process by SIGKILL: nothing is deferred, flushed or said.
//
// Why not panics or errors on demand: they run deferred functions, and what
// cleans up in those is just what a killed process does not do.
package crash
