package spec

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestHash_OldGoldens_NeverChange holds hashes that running tasks carry: if
// one changes, an update of Berth replaces every container of every user.
// There is no -update for it.
func TestHash_OldGoldens_NeverChange(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("testdata", "hash", "v1.json"))
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Name     string   `json:"name"`
		Service  Service  `json:"service"`
		Identity Identity `json:"identity"`
		Hash     string   `json:"hash"`
	}
	if err := json.Unmarshal(b, &cases); err != nil {
		t.Fatal(err)
	}
	if len(cases) < 5 {
		t.Fatalf("only %d golden hashes", len(cases))
	}
	for _, c := range cases {
		if got := Hash(&c.Service, c.Identity); got != c.Hash {
			t.Errorf("%s: hash is %s, was %s", c.Name, got, c.Hash)
		}
	}
}

// fill gives every exported field below v a value that is not zero.
func fill(t *rapid.T, v reflect.Value, label string) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem(), label)
	case reflect.Slice:
		n := rapid.IntRange(1, 3).Draw(t, label+"#")
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			fill(t, v.Index(i), fmt.Sprintf("%s.%d", label, i))
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for i := range rapid.IntRange(1, 4).Draw(t, label+"#") {
			v.SetMapIndex(reflect.ValueOf(fmt.Sprintf("k%d", i)), reflect.ValueOf(rapid.String().Draw(t, label)))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			fill(t, v.Field(i), label+"."+v.Type().Field(i).Name)
		}
	case reflect.String:
		v.SetString(rapid.StringN(1, 8, -1).Draw(t, label))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Float64:
		v.SetFloat(rapid.Float64Range(0.1, 5).Draw(t, label))
	case reflect.Int, reflect.Int64:
		v.SetInt(rapid.Int64Range(1, 1<<40).Draw(t, label))
	case reflect.Uint16, reflect.Uint32:
		v.SetUint(rapid.Uint64Range(1, 60000).Draw(t, label))
	default:
		t.Fatalf("no value for a field of kind %s (%s)", v.Kind(), label)
	}
}

func drawService(t *rapid.T) *Service {
	var s Service
	fill(t, reflect.ValueOf(&s).Elem(), "service")
	return &s
}

func drawIdentity(t *rapid.T, s *Service) Identity {
	id := Identity{ImageDigest: "sha256:" + rapid.StringMatching(`[0-9a-f]{8}`).Draw(t, "digest")}
	digest := func() string { return rapid.StringMatching(`[0-9a-f]{8}`).Draw(t, "part") }
	id.Configs, id.Secrets, id.Networks = map[string]string{}, map[string]string{}, map[string]string{}
	for _, c := range s.Configs {
		id.Configs[c.Source] = digest()
	}
	for _, c := range s.Secrets {
		id.Secrets[c.Source] = digest()
	}
	for _, a := range s.Networks {
		id.Networks[a.Network] = digest()
	}
	return id
}

// copyOf goes through JSON, as a Stack does on its way to the agent; maps are
// built anew, in another order.
func copyOf(t interface{ Fatal(...any) }, s *Service) *Service {
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var out Service
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	return &out
}

func TestHash_SameService_SameHash(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawService(t)
		id := drawIdentity(t, s)
		other := copyOf(t, s)
		otherID := id
		otherID.Configs = map[string]string{}
		for _, k := range slices.Backward(slices.Sorted(maps.Keys(id.Configs))) {
			otherID.Configs[k] = id.Configs[k]
		}
		if a, b := Hash(s, id), Hash(other, otherID); a != b {
			t.Fatalf("%s and %s", a, b)
		}
		if changes := Diff(s, other, id, otherID); len(changes) != 0 {
			t.Fatalf("differences between a service and its copy: %v", changes)
		}
	})
}

// TestHash_EachField_FollowsItsClass changes one field at a time.
func TestHash_EachField_FollowsItsClass(t *testing.T) {
	typ := reflect.TypeFor[Service]()
	for i := range typ.NumField() {
		f := typ.Field(i)
		class := classOf(f.Tag.Get("class"))
		t.Run(f.Name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				s := drawService(t)
				other := copyOf(t, s)
				field := reflect.ValueOf(other).Elem().Field(i)
				if rapid.Bool().Draw(t, "unset") {
					field.SetZero()
				} else {
					fill(t, field, "other")
				}
				was := reflect.ValueOf(s).Elem().Field(i)
				if reflect.DeepEqual(was.Interface(), field.Interface()) {
					t.Skip("drawn equal")
				}
				same := Hash(s, Identity{}) == Hash(other, Identity{})
				if same != (class != ClassReplace) {
					t.Fatalf("class %v, but the hash is the same: %v", class, same)
				}
				changes := Diff(s, other, Identity{}, Identity{})
				if len(changes) == 0 {
					t.Fatal("no difference is listed")
				}
				name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
				for _, c := range changes {
					if c.Class != class || !within(c.Path, name) {
						t.Fatalf("change %+v of field %s, class %v", c, name, class)
					}
				}
			})
		})
	}
}

// TestHash_Identity_CoversWhatIsUsed changes the digest of one thing.
func TestHash_Identity_CoversWhatIsUsed(t *testing.T) {
	s := &Service{
		Name: "web", Configs: []FileMount{{Source: "app", Target: "/app"}},
		Mounts: []Mount{{Type: MountVolume, Source: "data", Target: "/data"}},
	}
	id := Identity{
		ImageDigest: "sha256:1", Configs: map[string]string{"app": "a", "other": "x"},
		Volumes: map[string]string{"data": "v"},
	}
	base := Hash(s, id)
	change := func(f func(*Identity)) Identity {
		c := id
		c.Configs, c.Volumes = maps.Clone(id.Configs), maps.Clone(id.Volumes)
		f(&c)
		return c
	}
	for name, c := range map[string]struct {
		id      Identity
		differs bool
	}{
		"image":          {change(func(i *Identity) { i.ImageDigest = "sha256:2" }), true},
		"config":         {change(func(i *Identity) { i.Configs["app"] = "b" }), true},
		"unused config":  {change(func(i *Identity) { i.Configs["other"] = "y" }), false},
		"volume":         {change(func(i *Identity) { i.Volumes["data"] = "w" }), true},
		"unused network": {change(func(i *Identity) { i.Networks = map[string]string{"n": "1"} }), false},
	} {
		if got := Hash(s, c.id) != base; got != c.differs {
			t.Errorf("%s: hash differs: %v, want %v", name, got, c.differs)
		}
		if got := len(Diff(s, s, id, c.id)) > 0; got != c.differs {
			t.Errorf("%s: a difference is listed: %v, want %v", name, got, c.differs)
		}
	}
}

// TestCanonical_AdjacentTexts_DoNotRunTogether: without lengths, ["ab","c"]
// and ["a","bc"] would be one.
func TestCanonical_AdjacentTexts_DoNotRunTogether(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.SliceOfN(rapid.StringN(0, 4, -1), 0, 4)
		a, b := text.Draw(t, "a"), text.Draw(t, "b")
		one, two := &Service{DNS: a}, &Service{DNS: b}
		equal := slices.Equal(a, b) || (len(a) == 0 && len(b) == 0)
		if bytes.Equal(canonical(one, Identity{}), canonical(two, Identity{})) != equal {
			t.Fatalf("%q and %q", a, b)
		}
	})
}

func TestDiff_Environment_ShowsNoValue(t *testing.T) {
	old := &Service{Environment: map[string]string{"GONE": "secret1", "SAME": "x", "TOKEN": "secret2"}}
	now := &Service{Environment: map[string]string{"NEW": "secret3", "SAME": "x", "TOKEN": "secret4"}}
	var got []string
	for _, c := range Diff(old, now, Identity{}, Identity{}) {
		if strings.Contains(fmt.Sprintf("%+v", c), "secret") {
			t.Errorf("the value is shown: %+v", c)
		}
		got = append(got, c.String())
	}
	want := []string{"environment.GONE: removed", "environment.NEW: added", "environment.TOKEN: changed"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestDiff_SaysWhatChanged(t *testing.T) {
	grace := 30 * time.Second
	old := &Service{
		Image: "nginx:1.27", Command: &[]string{"a", "b c"}, Replicas: 1,
		Mounts: []Mount{{Type: MountBind, Source: "/a", Target: "/data"}},
		Ports:  []Port{{Published: 80, Target: 80, Protocol: "tcp"}},
	}
	now := &Service{
		Image: "nginx:1.28", Command: nil, Replicas: 3, StopGracePeriod: &grace,
		Mounts:    []Mount{{Type: MountBind, Source: "/b", Target: "/data", ReadOnly: true}},
		Ports:     []Port{{Published: 443, Target: 443, Protocol: "tcp"}, {Published: 80, Target: 80, Protocol: "tcp"}},
		Resources: Resources{Memory: 64 << 20},
	}
	var got []string
	for _, c := range Diff(old, now, Identity{ImageDigest: "sha256:1"}, Identity{ImageDigest: "sha256:2"}) {
		got = append(got, fmt.Sprintf("%s (%s)", c, c.Class))
	}
	want := []string{
		`command: [a, "b c"] removed (replace)`,
		`image: nginx:1.27 → nginx:1.28 (ignored)`,
		`mounts./data.read_only: true added (replace)`,
		`mounts./data.source: /a → /b (replace)`,
		`ports.443:443: 443:443 added (inplace)`,
		`replicas: 1 → 3 (ignored)`,
		`resources.memory: 67108864 added (inplace)`,
		`stop_grace_period: 30s added (inplace)`,
		`image.digest: sha256:1 → sha256:2 (replace)`,
	}
	slices.Sort(got[:len(got)-1])
	slices.Sort(want[:len(want)-1])
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
