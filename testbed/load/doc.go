// Package load is many clients of a service, of the kinds that a rollout can
// hurt, each with its own idea of what a failure is:
//
//   - requests: HTTP, a connection each, at a fixed rate whatever the service
//     does (open loop). A failure is whatever isn't a whole 200 within 5 s.
//   - kept: HTTP clients that keep their connection, think a random time, and
//     are idle for seconds now and then. One that sees its connection closed
//     while it thinks opens another, as any client does. A request that got
//     onto a connection and no whole answer is a failure: nothing is tried
//     again, so a reset into a request shows.
//   - streams: TCP sessions of bounded length. One that is cut is a failure.
//   - datagrams: UDP requests, half of them on a socket of their own, half on
//     one that lives for ever. One without an answer within 1 s is a failure.
//
// The service is testbed/cmd/echo: its answers tell the version and the
// address that it saw, so both are checked with every answer.
//
// Clients stand where a Dialer says: in the caller's network namespace, or in
// that of another machine or container.
package load
