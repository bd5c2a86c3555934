// Package secrets keeps the content of configs and secrets, encrypted, and
// delivers it into tasks on tmpfs.
//
// Content is stored once per keyed digest. The digest is an HMAC under a key
// of this machine, so that it says nothing about the content to whoever sees
// a plan or a revision. Plain content exists in memory and on the tmpfs of
// the tasks that were given it, nowhere else.
package secrets
