// Package images names, pulls, stores, unpacks and mounts container images.
//
// # Model
//
// An image is known by the digest of its manifest. A reference, such as
// docker.io/library/nginx:1.27, says which image is meant since the last pull,
// load or tag; it moves. Whoever needs an image to stay names its digest as
// pinned when Remove or Prune runs.
//
// A blob is a layer as it came. It is in ingest/ while it is downloaded, where
// it survives a restart and is taken up by Range, and in blobs/ once its digest
// is verified and the file durable. It is kept after it is unpacked: Save
// writes it out again bit by bit.
//
// A layer is unpacked once, while it is downloaded, and shared by all images
// under its diff id. It is unpacked below unpack/, moved to layers/ whole, and
// recorded when the file system is synced. A layer whose archive leaves out
// parent directories takes their attributes from the layers below, so it
// belongs to those: such a one is known by its chain id. This way all layers of
// an image are unpacked at the same time; containerd, which has a chain id for
// each layer, must wait for the parent.
//
// The records (bbolt) say what exists. A crash leaves files without a record,
// which Open collects, never a record without its files. References are
// written last, with the image and its layers, in one transaction.
//
// Work is shared: whoever asks for a reference or a layer that is on its way
// waits for it, and it is cancelled only when the last one has left. A lease
// keeps what a pull has so far from collection.
//
// # Trust
//
// What a registry or an archive sends is hostile. Sizes, counts and depths are
// bounded (limits), digests are verified while streaming, credentials go to
// their own registry only, plain HTTP is used only where it is allowed, and
// the kernel resolves each path of an archive with the layer as its root. What
// belongs to the host is left out: devices, trusted.* and security labels.
//
// # Kernel
//
// Unpacking needs openat2 (Linux 5.6). Mounts use lowerdir+ (6.8) and fall
// back to mount(2) before that, which fits some 500 layers.
package images
