// Package archive copies trees between a root folder and a tar stream, so that
// nothing in either leads out of that root.
//
// A root is a folder that may be hostile: the root file system of a container,
// whose links and mounts somebody else makes while it is read. Every path is
// opened with openat2(2) and RESOLVE_IN_ROOT: links, absolute ones and "..",
// lead where they would for a process whose root it is. A tar may be hostile as
// well: names are taken below the folder to unpack into, whatever they say, and
// devices are refused.
package archive
