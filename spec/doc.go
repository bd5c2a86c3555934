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
// Identity. Each field of Service carries a class (see Class): changing an
// "ignored" field changes no task, an "inplace" field is applied to running
// tasks without touching a process, any other field replaces them. Hash is
// over the fields of the replace class, in a canonical, versioned encoding of
// our own, so that a new version of Berth or of compose-go never recreates a
// container by itself.
//
// This package imports no other package of Berth.
package spec
