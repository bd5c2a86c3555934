package spec

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/transform"
	"github.com/compose-spec/compose-go/v2/tree"
	"github.com/compose-spec/compose-go/v2/types"
)

// How the file of a config or secret is encrypted: File.Encrypted. What
// follows "sops:" is the format that sops is told.
const (
	EncryptedAge        = "age"
	EncryptedSOPSYAML   = "sops:yaml"
	EncryptedSOPSJSON   = "sops:json"
	EncryptedSOPSDotenv = "sops:dotenv"
	EncryptedSOPSINI    = "sops:ini"
	EncryptedSOPSBinary = "sops:binary"
)

// sealedFactor is how much larger than its content an encrypted file may be:
// armor takes a third, SOPS some hundred bytes a value.
const sealedFactor = 4

// readContent reads the file of a config or secret, of which an encrypted one
// may be larger.
func readContent(c types.FileObjectConfig, limit int64) (content []byte, encrypted string, err error) {
	content, err = readRegular(c.File, limit)
	if info, statErr := os.Stat(c.File); err != nil && statErr == nil && info.Size() > limit {
		if sealed, sealedErr := readRegular(c.File, limit*sealedFactor); sealedErr == nil && encryption(c.File, sealed) != "" {
			content, err = sealed, nil
		}
	}
	if decrypt, ok := decrypts(c.Extensions); err != nil || !ok || !decrypt {
		return content, "", err
	}
	return content, encryption(c.File, content), nil
}

var (
	ageHeader = []byte("age-encryption.org/v1\n")
	ageArmor  = []byte("-----BEGIN AGE ENCRYPTED FILE-----")
)

// encryption says how content is encrypted, from what it is; its name only
// tells a JSON file from a binary one, which SOPS writes alike.
func encryption(name string, content []byte) string {
	if bytes.HasPrefix(content, ageHeader) || bytes.HasPrefix(bytes.TrimLeft(content, " \t\r\n"), ageArmor) {
		return EncryptedAge
	}
	if !bytes.Contains(content, []byte("sops")) || !bytes.Contains(content, []byte("ENC[")) {
		return ""
	}
	switch {
	case bytes.HasPrefix(bytes.TrimLeft(content, " \t\r\n"), []byte("{")):
		return sopsJSON(name, content)
	case sopsDotenv().Match(content):
		return EncryptedSOPSDotenv
	case sopsINI().Match(content):
		return EncryptedSOPSINI
	case sopsYAML().Match(content):
		return EncryptedSOPSYAML
	}
	return ""
}

// What SOPS adds to a file: its MAC, where each format has the metadata.
var (
	sopsYAML   = lazy(`(?m)^sops:[ \t]*\r?\n(?:[ \t#].*\n|\r?\n|- .*\n)*?[ \t]+mac: ["']?ENC\[`)
	sopsDotenv = lazy(`(?m)^sops_mac=ENC\[`)
	sopsINI    = lazy(`(?m)^\[sops\][ \t]*\r?\n(?:[^\[\n].*\n|\r?\n)*?mac[ \t]*=[ \t]*ENC\[`)
)

func sopsJSON(name string, content []byte) string {
	var doc map[string]json.RawMessage
	var meta struct {
		MAC string `json:"mac"`
	}
	if json.Unmarshal(content, &doc) != nil || json.Unmarshal(doc["sops"], &meta) != nil || !strings.HasPrefix(meta.MAC, "ENC[") {
		return ""
	}
	if _, data := doc["data"]; data && len(doc) == 2 && filepath.Ext(name) != ".json" {
		return EncryptedSOPSBinary
	}
	return EncryptedSOPSJSON
}

// decrypts reads x-decrypt; ok is false for what is no boolean.
func decrypts(ext types.Extensions) (value, ok bool) {
	switch v := ext[keyDecrypt]; fmt.Sprint(v) {
	case "<nil>", "true":
		return true, true
	case "false":
		return false, true
	}
	return false, false
}

// Provider is whom the agent asks for the content of a config or secret, each
// time that it plans or applies: an executable in its folder of providers.
type Provider struct {
	Command string        `json:"command"` // a file name
	Args    []string      `json:"args,omitempty"`
	Timeout time.Duration `json:"timeout"`
}

// Timeouts of a Provider.
const (
	providerTimeout    = 10 * time.Second
	maxProviderTimeout = time.Minute
)

var providerName = lazy(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}$`)

// checkSource checks what says where a config or secret comes from.
func (l *loading) checkSource(at string, c types.FileObjectConfig) {
	for _, key := range sortedKeys(c.Extensions) {
		l.misspelt(at, key, []string{keyProvider, keyDecrypt})
	}
	if _, ok := decrypts(c.Extensions); !ok {
		l.add(l.placedValue(Error, at+"."+keyDecrypt, fmt.Sprintf("%s is %v", keyDecrypt, c.Extensions[keyDecrypt]), "write false to deliver an encrypted file as it is"))
	}
	v, ok := c.Extensions[keyProvider]
	if !ok {
		return
	}
	if v == nil {
		l.add(l.placed(Error, at+"."+keyProvider, keyProvider+" is empty", "name a program in the agent's folder of providers"))
		return
	}
	for attr, is := range map[string]bool{
		"file": c.File != "", "environment": c.Environment != "", "content": c.Content != "", "external": bool(c.External),
	} {
		if is {
			l.add(l.placed(Error, at+"."+keyProvider, subject(at)+" has "+keyProvider+" and "+attr, "keep one"))
			return
		}
	}
	l.readProvider(at, v, func(path, problem, hint string) { l.add(l.placedValue(Error, path, problem, hint)) })
}

// provider is the x-provider of a config or secret, which was checked. Without
// args it gets one: the name.
func (l *loading) provider(at string, c types.FileObjectConfig) *Provider {
	p, silent := l.readProvider(at, c.Extensions[keyProvider], func(string, string, string) {})
	if silent {
		name := at[strings.IndexByte(at, '.')+1:]
		if l.wrote(at + ".name") {
			name = c.Name
		}
		p.Args = []string{name}
	}
	return &p
}

// readProvider reads the short and the long form; silent says that there is no
// args.
func (l *loading) readProvider(at string, v any, wrong func(path, problem, hint string)) (p Provider, silent bool) {
	at += "." + keyProvider
	p.Timeout = providerTimeout
	m, ok := v.(map[string]any)
	if !ok {
		m = map[string]any{"command": v}
	}
	for _, key := range sortedKeys(m) {
		value := m[key]
		switch {
		case key == "command":
		case key == "args":
			var problem string
			if p.Args, problem = arguments(value); problem != "" {
				wrong(at+".args", keyProvider+".args "+problem, "write a list of texts")
			}
		case key == "timeout":
			var d types.Duration
			err := d.DecodeMapstructure(value)
			if p.Timeout = time.Duration(d); err != nil || p.Timeout < time.Millisecond || p.Timeout > maxProviderTimeout {
				wrong(at+".timeout", fmt.Sprintf("%s.timeout is %v", keyProvider, value), "write a duration such as 10s, at most 1m")
			}
		case !strings.HasPrefix(key, "x-"):
			wrong(at+"."+key, fmt.Sprintf("unknown attribute %q in %s", key, keyProvider), "the keys are: command, args, timeout")
		}
	}
	name, isText := m["command"].(string)
	path := at
	if ok && m["command"] != nil {
		path += ".command"
	}
	switch {
	case m["command"] == nil:
		wrong(path, keyProvider+" has no command", "name a program in the agent's folder of providers")
	case !isText:
		wrong(path, keyProvider+" is no text", "write the name of a program, or command, args and timeout")
	case !providerName().MatchString(name):
		wrong(path, fmt.Sprintf("%s is %q", keyProvider, name),
			"write the file name of a program in the agent's folder of providers (/etc/berth/providers), without a path; arguments go into args")
	}
	p.Command = name
	_, has := m["args"]
	return p, !has
}

func arguments(v any) (out []string, problem string) {
	items, ok := v.([]any)
	if !ok {
		return nil, "is no list"
	}
	for _, item := range items {
		switch item := item.(type) {
		case string, bool, int, int64, uint64, float64:
			text := fmt.Sprint(item)
			if strings.ContainsRune(text, 0) {
				return nil, "has a NUL byte"
			}
			out = append(out, text)
		default:
			return nil, "holds what is no text"
		}
	}
	return out, ""
}

// The loader takes no config or secret without one of Compose's own sources,
// but an empty one will do. It is given to those that have a provider.
func init() { //nolint:gochecknoinits // the loader has one table of defaults, for all
	for _, kind := range []string{"configs", "secrets"} {
		transform.RegisterDefaultValue(kind+".*", standIn)
	}
}

func standIn(data any, _ tree.Path, _ bool) (any, error) {
	m, _ := data.(map[string]any)
	if _, ok := m[keyProvider]; !ok {
		return data, nil
	}
	for _, source := range []string{"file", "environment", "content", "external", "driver"} {
		if _, ok := m[source]; ok {
			return data, nil
		}
	}
	m["environment"] = ""
	return data, nil
}

// withoutStandIns takes the stand-ins out of a model that is printed.
func withoutStandIns(model map[string]any) {
	for _, kind := range []string{"configs", "secrets"} {
		for _, m := range children(model[kind]) {
			if _, ok := m[keyProvider]; ok && m["environment"] == "" {
				delete(m, "environment")
			}
		}
	}
}
