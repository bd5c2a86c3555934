package runtime

import (
	"bytes"
	"errors"
	"io/fs"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// identity is a USER resolved to numbers.
type identity struct {
	uid, gid uint32
	groups   []uint32 // sorted; has gid
	home     string
	found    bool // the user is in /etc/passwd
}

func (i identity) oci() specs.User {
	return specs.User{UID: i.uid, GID: i.gid, AdditionalGids: i.groups}
}

// LookupUser gives the numbers of the user and the group that a container with
// this root filesystem runs as.
func LookupUser(rootfs, user string) (uid, gid int, err error) {
	root, err := openRootfs(rootfs)
	if err != nil {
		return 0, 0, err
	}
	defer root.close()
	id, err := lookupUser(root, user, nil)
	return int(id.uid), int(id.gid), err
}

// lookupUser resolves user[:group], names or numbers, and further groups, in
// the image's own databases. Only numbers go to the runtime: parsers of user
// strings have been root by accident (CVE-2024-40635, CVE-2026-30892).
//
// The primary group is always among the additional ones, or a process could
// drop it to get past a "deny this group" permission (CVE-2022-2995).
func lookupUser(r *rootfs, user string, add []string) (identity, error) {
	passwd, err := database(r, "etc/passwd")
	if err != nil {
		return identity{}, err
	}
	group, err := database(r, "etc/group")
	if err != nil {
		return identity{}, err
	}
	name, groupName, hasGroup := strings.Cut(user, ":")
	if name == "" {
		name = "0"
	}
	id, login, err := findUser(passwd, name)
	if err != nil {
		return identity{}, err
	}
	switch {
	case hasGroup && groupName != "":
		if id.gid, err = findGroup(group, groupName); err != nil {
			return identity{}, err
		}
	case login != "":
		id.groups = memberships(group, login)
	}
	id.groups = append(id.groups, id.gid)
	for _, g := range add {
		gid, err := findGroup(group, g)
		if err != nil {
			return identity{}, err
		}
		id.groups = append(id.groups, gid)
	}
	slices.Sort(id.groups)
	id.groups = slices.Compact(id.groups)
	const maxGroups = 65536 // NGROUPS_MAX
	if len(id.groups) > maxGroups {
		return identity{}, invalid("user %q is in more than %d groups", user, maxGroups)
	}
	return id, nil
}

func database(r *rootfs, p string) ([]byte, error) {
	b, err := r.readFile(p, maxDatabase)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

// parseID accepts decimal numbers up to 2^31-2: what is above is negative to
// some program, and -1 means "leave as it is" to chown and setresuid.
func parseID(s string) (uint32, bool) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n > math.MaxInt32-1 {
		return 0, false
	}
	return uint32(n), true
}

func isNumber(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// findUser prefers a name that consists of digits, as POSIX asks, then the
// number. A number that is in no database is a user of group 0, as in Docker.
func findUser(passwd []byte, name string) (id identity, login string, err error) {
	number, numeric := parseID(name)
	if isNumber(name) && !numeric {
		return id, "", invalid("user %q is outside 0 to %d", clip(name), math.MaxInt32-1)
	}
	var byNumber []string
	for line := range bytes.Lines(passwd) {
		f := strings.Split(strings.TrimSpace(string(line)), ":")
		if len(f) < 4 {
			continue
		}
		if f[0] == name {
			return fromPasswd(f)
		}
		if u, ok := parseID(f[2]); numeric && ok && u == number && byNumber == nil {
			byNumber = f
		}
	}
	if byNumber != nil {
		return fromPasswd(byNumber)
	}
	if !numeric {
		return id, "", invalid("user %q is not in the image's /etc/passwd", clip(name))
	}
	return identity{uid: number, home: "/"}, "", nil
}

func fromPasswd(f []string) (identity, string, error) {
	uid, ok1 := parseID(f[2])
	gid, ok2 := parseID(f[3])
	if !ok1 || !ok2 {
		return identity{}, "", invalid("user %q of the image's /etc/passwd has the ids %q and %q", clip(f[0]), clip(f[2]), clip(f[3]))
	}
	id := identity{uid: uid, gid: gid, home: "/", found: true}
	if len(f) > 5 && strings.HasPrefix(f[5], "/") {
		id.home = f[5]
	}
	return id, f[0], nil
}

func findGroup(group []byte, name string) (uint32, error) {
	for line := range bytes.Lines(group) {
		f := strings.Split(strings.TrimSpace(string(line)), ":")
		if len(f) < 3 || f[0] != name {
			continue
		}
		if gid, ok := parseID(f[2]); ok {
			return gid, nil
		}
		return 0, invalid("group %q of the image's /etc/group has the id %q", clip(name), clip(f[2]))
	}
	if gid, ok := parseID(name); ok {
		return gid, nil
	}
	if isNumber(name) {
		return 0, invalid("group %q is outside 0 to %d", clip(name), math.MaxInt32-1)
	}
	return 0, invalid("group %q is not in the image's /etc/group", clip(name))
}

// memberships are the groups that list a user.
func memberships(group []byte, login string) []uint32 {
	var out []uint32
	for line := range bytes.Lines(group) {
		f := strings.Split(strings.TrimSpace(string(line)), ":")
		if len(f) < 4 || !slices.Contains(strings.Split(f[3], ","), login) {
			continue
		}
		if gid, ok := parseID(f[2]); ok {
			out = append(out, gid)
		}
	}
	return out
}

// clip keeps a hostile text from filling an error message.
func clip(s string) string {
	if len(s) > 40 {
		return s[:40] + "…"
	}
	return s
}
