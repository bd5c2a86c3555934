// Package redact keeps the values of secrets out of what Berth says.
//
// A Set knows values, and replaces them in text by Mark: as they are, and in
// the forms in which text shows them: quoted as Go and JSON do (also twice),
// escaped as in a URL, in base64 at any alignment, in hexadecimal, as a list of
// numbers. Of a value of several lines each long one counts as well. Whoever
// learns a value adds it; whoever writes to a user, a log or a record asks.
//
// The Set holds no values: of each form it has the first bytes, the length and
// a hash under a random key. So a value costs it some hundred bytes whatever
// its size, and text is looked through once however many values there are.
//
// A value shorter than MinValue is not redacted: it would be found where it is
// not meant. Nor is one that is part of a name (of a service, an image, a field
// of the API): the name is known, and a hole in it would tell the value.
package redact
