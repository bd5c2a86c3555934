// Package store keeps what must survive: stacks, their revisions, tasks, and
// the addresses that were given away.
//
// A record is JSON under a bucket and a key. Records change only inside a
// transaction; a transaction that returned is durable, one that failed or was
// cut short left nothing. Intent comes first: the record of a task, with its
// id and its addresses, is committed before anything is made for it, so what
// a dead agent left behind can always be told from what nobody wanted.
//
// Two backends pass one conformance suite (storetest): bbolt on disk for one
// host, and memory for tests of what is built on top.
package store
