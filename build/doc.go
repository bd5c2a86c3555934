// Package build makes images from Dockerfiles: the client's half, which packs
// what a build needs, and the agent's half, which hands it to a builder.
//
// # Model
//
// A Request says what to build. The client sends it as one tar (Pack): the
// request first, then the folders, the Dockerfile, secrets and keys that it
// names. So nothing but bytes crosses the socket: the agent never opens a path
// of the client's, .dockerignore is applied where the files are, and a symlink
// in a context is only ever a symlink.
//
// The agent unpacks it (Unpack) into a room: a folder of its own for each
// build, on disk for what may be large, and one on tmpfs for secrets. A room
// goes when its build ends; what a killed agent left goes at the next start.
//
// A builder is a program that the agent executes: buildctl, which talks to the
// BuildKit of BUILDKIT_HOST or to a buildkitd that the agent starts, or
// buildah. Both write one OCI archive into the room; the caller loads it into
// the image store. A build that fails or is cancelled leaves the store alone.
//
// # Processes
//
// Builders run in mount and PID namespaces of their own (unshare): when the
// agent ends them, or dies, all that they started and mounted ends with them.
// Their state, which is cache, is below Root; the images that count are in
// the agent's store only.
//
// # Trust
//
// The context and the Dockerfile are hostile to the host. RUN steps are
// containers: of BuildKit, or of buildah with OCI isolation. Host network and
// privileges need the file's own word (network: host, entitlements).
package build
