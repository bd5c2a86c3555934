// Package cli turns what the agent answers into what a person or a script
// reads: tables, plans, merged logs, the live picture of a rollout. It also
// finds and starts an agent when none listens.
//
// A Screen says what an output can show: colours, redrawn lines, neither.
// Everything that is drawn goes through one, so a pipe never gets an escape
// sequence. Renderers take api types and a Screen and hold no connection;
// tests feed them values and compare text.
//
// Names, labels, messages and image references were written by others: they
// pass through Escape before they reach a Screen, so none of them can move a
// cursor or set a title.
package cli
