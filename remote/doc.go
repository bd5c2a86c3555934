// Package remote fetches Compose files that are not on this machine: from Git
// repositories and from registries. It also publishes a stack to a registry.
//
// A reference is what a user writes behind -f, under include or in
// extends.file:
//
//	https://host/team/repo.git#REF:FOLDER    also ssh://, git://, file://, git@host:repo.git
//	oci://registry/team/stack:TAG            an artifact as `docker compose publish` makes it
//
// A Fetcher turns it into the path of a local file. What was fetched stays in
// its cache, under the commit or the digest of the manifest: a branch or tag
// is asked for each time, its content is transferred once. A folder of the
// cache appears whole, by rename, and is never changed.
//
// Both sources are hostile: what they hold is bounded in size (maxRepository,
// maxArtifact), names in it cannot lead out of its folder, symbolic links of a
// repository become text. Git is the git program, so that its credential
// helpers, SSH agent and proxies work; it may neither ask nor run a transport
// that runs programs (ext::). For registries the credentials are those of
// Docker's configuration and its helpers.
//
// This package imports no other package of Berth.
package remote
