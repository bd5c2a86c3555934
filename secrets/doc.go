// Package secrets keeps the content of configs and secrets, encrypted, and
// delivers it into tasks on tmpfs.
//
// Content is stored once per keyed digest. The digest is an HMAC under a key
// of this machine, so that it says nothing about the content to whoever sees
// a plan or a revision. Plain content exists in memory and on the tmpfs of
// the tasks that were given it, nowhere else.
//
// Two sources of contents need the host: files that age or SOPS has encrypted
// to its keys (Decrypt), and programs that root has put there (Ask). Their
// children get no more than they need, and end with their process group.
package secrets
