package agent

import (
	"context"
	"io"
	"net/netip"

	"berth/images"
	"berth/overlaynet"
	"berth/runtime"
	"berth/runtime/cdi"
	"berth/secrets"
)

// Images is what the agent needs of images.Store.
type Images interface {
	// Pull makes ref present as policy asks and returns it. Concurrent pulls
	// of one image share the work. A failure leaves what was there before.
	Pull(ctx context.Context, ref string, o images.PullOptions) (images.Image, error)
	// Resolve finds an image of the store by reference, digest or id
	// (a unique prefix will do). images.ErrNotFound if there is none.
	Resolve(ref string) (images.Image, error)
	List() ([]images.Image, error)
	// Mount mounts the image's layers at target. With upper == "" read-only.
	// Idempotent: a target that is mounted already is left alone.
	Mount(ctx context.Context, digest string, m images.Mount) error
	// Unmount is idempotent and detaches lazily when the target is busy.
	Unmount(target string) error
	Load(ctx context.Context, tar io.Reader, progress func(images.Progress)) ([]images.Image, error)
	Save(ctx context.Context, w io.Writer, refs []string) error
	Tag(ref, digest string) error
	// Commit makes an image of another one and one more layer.
	Commit(ctx context.Context, base string, layer func(io.Writer) error, o images.CommitOptions) (images.Image, error)
	// Push sends an image to the registry that ref names and returns its
	// digest there.
	Push(ctx context.Context, ref string, o images.PullOptions) (string, error)
	// Digest asks the registry what ref means now.
	Digest(ctx context.Context, ref string, o images.PullOptions) (string, error)
	// Login asks the registry whether it takes these credentials.
	Login(ctx context.Context, host, user, password string) error
	History(ref string) ([]images.Step, error)
	// Usage tells what each image takes on the disk, and all together.
	Usage() (list []images.Usage, total int64)
	// Remove takes a reference away and, with its last one, the image.
	// pinned digests are never deleted (images.ErrInUse).
	Remove(ref string, force bool, pinned map[string]bool) (images.Removed, error)
	Prune(all bool, pinned map[string]bool) (images.Removed, error)
}

// Containers is what the agent needs of runtime.Runtime.
type Containers interface {
	// Create makes the bundle and a container in state created. On failure
	// nothing is left. An id that exists already is runtime.ErrExists.
	Create(ctx context.Context, c runtime.Container) error
	// Start is idempotent: a running container is success.
	Start(ctx context.Context, id string) error
	Signal(ctx context.Context, id string, s runtime.Signal) error
	Pause(ctx context.Context, id string) error
	Resume(ctx context.Context, id string) error
	// Update changes the limits of a running container.
	Update(ctx context.Context, id string, r runtime.Resources) error
	// Delete kills what still runs and removes all but the log. Idempotent.
	Delete(ctx context.Context, id string) error
	// CheckRuntime says whether there is an OCI runtime of this name.
	CheckRuntime(name string) error
	// Devices reads what CDI devices there are now.
	Devices() *cdi.Registry
	// RemoveLog removes the log files of a deleted container.
	RemoveLog(id string) error
	// Status of one container; runtime.ErrNotFound if no trace is left.
	Status(ctx context.Context, id string) (runtime.Status, error)
	// List is one consistent look at all containers below Config.Run,
	// whoever made them.
	List(ctx context.Context) ([]runtime.Status, error)
	// Exits delivers the status of each container that exits, at least once,
	// also of those that exited while no agent ran. Closed by Close.
	Exits() <-chan runtime.Status
	Exec(ctx context.Context, id string, e runtime.Exec) (exitCode int, err error)
	// Attach copies a container's output from now on, and stdin to it.
	// A slow writer is dropped, never the container. A container that was not
	// started yet may be attached to.
	Attach(ctx context.Context, id string, s runtime.Streams) error
	// Logs calls f for each line in order until f fails or, without Follow,
	// the log ends. With Follow it ends when the container has exited.
	Logs(ctx context.Context, id string, o runtime.LogOptions, f func(runtime.LogLine) error) error
	LogPath(id string) string
	// RotateLogs rotates what has grown past its cap; called by the agent
	// every few seconds.
	RotateLogs(ctx context.Context) error
	Stats(ctx context.Context, id string) (runtime.Stats, error)
	Processes(ctx context.Context, id string) ([]runtime.Process, error)
	// Name is the OCI runtime in use and its path.
	Name() (name, path string)
	Close() error
}

// Networks is what the agent needs of overlaynet.Manager.
type Networks interface {
	// Allocate chooses subnets and gateways for a new network: those asked
	// for, else the first free ones of the pools. used are the networks that
	// exist. overlaynet.ErrPoolExhausted, overlaynet.ErrOverlap.
	Allocate(want overlaynet.Request, used []overlaynet.Network) (overlaynet.Network, error)
	// Ensure makes the bridge exist, up, with its gateway addresses.
	Ensure(ctx context.Context, n overlaynet.Network) error
	// Remove deletes the bridge. Idempotent.
	Remove(ctx context.Context, n overlaynet.Network) error
	// Attach makes the network namespace of a task with loopback up and one
	// veth per endpoint, and returns its path. Idempotent. With no endpoints
	// it is an isolated namespace (network_mode none).
	Attach(ctx context.Context, taskID string, eps []overlaynet.Endpoint) (netns string, err error)
	// Detach removes the namespace and the links. Idempotent.
	Detach(ctx context.Context, taskID string) error
	// Sync makes the kernel's rules equal to r; it returns when they are in
	// force. Unchanged rules cost a comparison. UDP flows to backends that
	// left are purged.
	Sync(ctx context.Context, r overlaynet.Rules) error
	// Changed delivers when somebody else has changed or flushed our rules
	// or removed a bridge.
	Changed() <-chan struct{}
	// Sweep removes namespaces, links and bridges that belong to no id.
	Sweep(ctx context.Context, networkIDs, taskIDs map[string]bool) error
	// Bridge is the name of a network's bridge.
	Bridge(networkID string) string
	// Flows counts the conntrack flows to each backend address and tells since
	// when they are silent.
	Flows(ctx context.Context, addrs []netip.Addr) (map[netip.Addr]overlaynet.Flow, error)
	// Teardown removes the table, the rule guard and nothing else.
	Teardown(ctx context.Context) error
	Close() error
}

// Secrets is what the agent needs of secrets.Store.
type Secrets interface {
	// Put stores content (at most 1 MiB) and returns its keyed digest.
	Put(content []byte) (digest string, err error)
	// Digest is what Put would return; nothing is stored.
	Digest(content []byte) string
	Get(digest string) ([]byte, error)
	// Deliver mounts a tmpfs for taskID holding files and returns its path,
	// mode 0711, read-only once filled. Idempotent: it replaces what is there.
	Deliver(taskID string, files []secrets.File) (dir string, err error)
	// Rewrite gives files that were delivered to a running task other contents,
	// in place. Idempotent.
	Rewrite(taskID string, files []secrets.File) error
	// Withdraw unmounts it. Idempotent.
	Withdraw(taskID string) error
	// Rekey encrypts everything to a new identity.
	Rekey() error
	// Decrypt gives the plain form, at most limit bytes, of a file that is
	// encrypted in format (spec.File.Encrypted). *secrets.SourceError.
	Decrypt(ctx context.Context, format string, content []byte, limit int) ([]byte, error)
	// Ask runs a provider for a content. *secrets.SourceError.
	Ask(ctx context.Context, q secrets.Question) ([]byte, error)
	// Recipients are what files may be encrypted to; the first call makes keys.
	Recipients() ([]secrets.Recipient, error)
	// Sweep withdraws from tasks not in keep and deletes content not in use.
	Sweep(keepTasks, usedDigests map[string]bool) error
}
