// Package images names, pulls, stores, unpacks and mounts container images.
//
// The store holds blobs by digest, layers unpacked once per diff id, and
// references to images. A blob is visible only when its digest is verified
// and its file is durable; a layer only when it is unpacked whole. A crash
// leaves temporary files, which Open collects, never half of either.
//
// An image is known by the digest of its manifest. References move; whoever
// needs an image to stay pins it by digest (Roots) before Prune runs.
//
// What a registry sends is hostile: sizes are bounded, digests are verified
// while streaming, tar entries can't leave their layer.
package images
