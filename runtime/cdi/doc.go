// Package cdi finds devices of the Container Device Interface and puts them
// into an OCI configuration.
//
// A specification is a JSON or YAML file in /etc/cdi or /run/cdi, written by a
// vendor's tool. It has a kind, vendor.com/class, and devices, each with a name
// and edits: variables, device nodes, mounts, hooks, groups. A device is asked
// for as vendor.com/class=name. What the file says is the operator's word, as
// a device's driver is: hooks run on the host.
//
// Format: https://github.com/cncf-tags/container-device-interface, SPEC.md,
// versions 0.3 to 1.0. The project's own library is not used: it would bring
// runtime-tools and a JSON schema for what is one struct here.
package cdi
