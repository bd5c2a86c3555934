// Package runtime lives the life of one container: OCI configuration, conmon
// and an OCI runtime (crun or runc), exec, logs, resource use.
//
// A container is created, started, exits, and is deleted; it never starts a
// second time. Its id names everything it owns: the bundle below Run, the
// cgroup, the log, the exit file. conmon, not the agent, is its parent: the
// agent may die at any point, and Open finds again what runs.
//
// The truth about an exit comes from three sources read together: conmon's
// exit file, the state that the runtime reports, and the pid with its start
// time. None alone is enough: a killed conmon writes no file, a full disk
// loses it, a pid is reused.
//
// The package knows nothing of stacks, images or networks. It is handed a
// root filesystem that is mounted already and the path of a network
// namespace.
package runtime
