package spec

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
)

// Class says what a changed field of a Service does to its running tasks.
type Class int

// Classes of a field.
const (
	ClassReplace Class = iota // a new task replaces the old one
	ClassInPlace              // applied to the running task
	ClassIgnored              // concerns no running task
)

// String is the word for c in the class tag of a field.
func (c Class) String() string {
	switch c {
	case ClassInPlace:
		return "inplace"
	case ClassIgnored:
		return "ignored"
	}
	return "replace"
}

// classOf reads a class tag; a field without one replaces.
func classOf(tag string) Class {
	switch tag {
	case "inplace":
		return ClassInPlace
	case "ignored":
		return ClassIgnored
	}
	return ClassReplace
}

// Identity is what a task's hash covers beside the service's own fields:
// content that the file only names. All values are opaque to spec.
type Identity struct {
	ImageDigest string            // digest of the image's manifest
	Configs     map[string]string // config key -> content digest
	Secrets     map[string]string // secret key -> keyed content digest
	Volumes     map[string]string // volume key -> volume identity
	Networks    map[string]string // network key -> network identity
}

// used leaves out what s does not mention, so that a whole stack's digests
// can be passed for each of its services.
func (id Identity) used(s *Service) Identity {
	keep := func(m map[string]string, keys func(yield func(string))) map[string]string {
		out := map[string]string{}
		keys(func(k string) {
			if v, ok := m[k]; ok {
				out[k] = v
			}
		})
		return out
	}
	id.Configs = keep(id.Configs, func(yield func(string)) { sources(s.Configs, false, yield) })
	id.Secrets = keep(id.Secrets, func(yield func(string)) { sources(s.Secrets, false, yield) })
	id.Volumes = keep(id.Volumes, func(yield func(string)) {
		for _, m := range s.Mounts {
			if m.Type == MountVolume {
				yield(m.Source)
			}
		}
	})
	id.Networks = keep(id.Networks, func(yield func(string)) {
		for _, a := range s.Networks {
			yield(a.Network)
		}
	})
	return id
}

// sources yields the configs or secrets of a service whose content is changed
// in place, or those whose content replaces the tasks: one that any of its
// mounts asks that of.
func sources(mounts []FileMount, inPlace bool, yield func(string)) {
	replaces := map[string]bool{}
	for _, m := range mounts {
		replaces[m.Source] = replaces[m.Source] || m.OnChange == ""
	}
	for source, r := range replaces {
		if r != inPlace {
			yield(source)
		}
	}
}

// InPlaceIdentity is the part of id that is not in the hash of s, as a change
// of it reaches a running task (x-on-change): digests by "configs.NAME" and
// "secrets.NAME".
func InPlaceIdentity(s *Service, id Identity) map[string]string {
	out := map[string]string{}
	take := func(kind string, mounts []FileMount, digests map[string]string) {
		sources(mounts, true, func(source string) {
			if d := digests[source]; d != "" {
				out[kind+"."+source] = d
			}
		})
	}
	take("configs", s.Configs, id.Configs)
	take("secrets", s.Secrets, id.Secrets)
	return out
}

// hashVersion names the encoding. It changes only if the meaning of an
// encoded field does; then every task is replaced once.
const hashVersion = "v1"

// Hash is the identity of a task of s: "v1:" and 64 hex digits. Two services
// with equal hashes can share a running task. Zero fields are left out of the
// encoding, so a field added to Service changes no hash until it is used.
// Of id it covers what s mentions.
func Hash(s *Service, id Identity) string {
	sum := sha256.Sum256(canonical(s, id))
	return hashVersion + ":" + hex.EncodeToString(sum[:])
}

// canonical is the byte form that Hash covers.
func canonical(s *Service, id Identity) []byte {
	id = id.used(s)
	var e encoder
	e.text(hashVersion)
	e.service(s)
	e.pair("image", id.ImageDigest)
	for _, part := range []struct {
		name string
		m    map[string]string
	}{{"configs", id.Configs}, {"secrets", id.Secrets}, {"volumes", id.Volumes}, {"networks", id.Networks}} {
		m := maps.Clone(part.m)
		maps.DeleteFunc(m, func(_, v string) bool { return v == "" })
		if len(m) > 0 {
			e.text("identity." + part.name)
			e.stringMap(m)
		}
	}
	return e.buf
}
