// Package spec turns Compose files into a Stack: the desired state of one
// Compose project, resolved and self-contained.
//
// A Stack is made once, where the user stands (Load), and then only copied:
// the command line sends it to the agent, the store keeps it inside a
// revision, the planner compares it. It holds no pointer to a file, to the
// environment or to the compose-go library; what a service needs from a file
// (env_file, config, secret) was read when it was loaded.
//
// Every mistake and every attribute that Berth does not honour is a
// Diagnostic with a Position in the user's file. Nothing is ignored in
// silence.
//
// # How Load works
//
// Two readers look at the same bytes. The reference loader (compose-go)
// decides: merge, interpolation, include, extends, profiles and whether the
// file is valid are its, so that a file means here what it means there. It
// knows no lines, stops at the first mistake and ignores what it likes.
// So a walk of our own over the YAML nodes goes first (survey): it bounds
// what hostile files can cost (budget), finds the place of every attribute
// (index), and collects suspects: unknown attributes, missing variables, bad
// ports, all of them. If the loader then refuses the files, the suspects
// explain it, and the loader's text is only used for what they do not cover
// (explain). Files that are plain and right go through the loader's stages one
// by one, which is five times as quick (stages). If it accepts them, a suspect was removed by a later file or
// does nothing, and is reported as ignored. What the loader calls
// consistency is checked here, for all services at once (check), and what is
// accepted becomes the Stack (convert).
//
// What is honoured stands in one table (support.go): the linter, the
// suggestions and the documentation come from it.
//
// # Identity
//
// Each field of Service carries a class (see Class): changing an "ignored"
// field changes no task, an "inplace" field is applied to running tasks
// without touching a process, any other field replaces them. Hash is over
// the fields of the replace class, in a canonical, versioned encoding of our
// own, so that a new version of Berth or of compose-go never recreates a
// container by itself.
//
// This package imports no other package of Berth.
package spec
