package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/renameio/v2"
)

// Credentials are those that `docker login` keeps, in Docker's configuration
// file (DOCKER_CONFIG/config.json, else ~/.docker/config.json) and in the
// credential helpers that it names. What Berth does not know in the file is
// kept as it is.
type Credentials struct {
	path   string
	fields map[string]json.RawMessage

	auths   map[string]dockerAuth
	store   string            // credsStore
	helpers map[string]string // credHelpers, by host
}

// dockerAuth is one entry of auths.
type dockerAuth struct {
	Auth          string `json:"auth,omitempty"` // base64 of user:password
	Username      string `json:"username,omitempty"`
	Password      string `json:"password,omitempty"`
	IdentityToken string `json:"identitytoken,omitempty"`
}

// dockerHub is the key under which everybody keeps what is for docker.io.
const dockerHub = "https://index.docker.io/v1/"

// tokenUser is the user's name that marks a secret as an identity token.
const tokenUser = "<token>"

// helperLimit bounds a credential helper: some ask the user to unlock a
// keyring.
const helperLimit = 2 * time.Minute

// ReadCredentials reads Docker's configuration; a file that is missing holds
// nothing.
func ReadCredentials() (*Credentials, error) {
	dir := os.Getenv("DOCKER_CONFIG")
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return &Credentials{}, nil // nobody's credentials
		}
		dir = filepath.Join(home, ".docker")
	}
	c := &Credentials{path: filepath.Join(dir, "config.json"), fields: map[string]json.RawMessage{}}
	data, err := os.ReadFile(c.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return c, nil
	case err != nil:
		return nil, fmt.Errorf("read Docker's configuration: %w", err)
	}
	known := struct {
		Auths       *map[string]dockerAuth `json:"auths"`
		CredsStore  *string                `json:"credsStore"`
		CredHelpers *map[string]string     `json:"credHelpers"`
	}{&c.auths, &c.store, &c.helpers}
	if err = json.Unmarshal(data, &c.fields); err == nil {
		err = json.Unmarshal(data, &known)
	}
	if err != nil {
		// The parser's text may quote the file, which holds secrets.
		return nil, fmt.Errorf("read Docker's configuration %s: it is not the JSON that docker writes", c.path)
	}
	return c, nil
}

// RegistryHost is the host of a registry as people name it to `docker login`:
// "" and the names of Docker Hub are docker.io; a scheme and a path go.
func RegistryHost(name string) string {
	name = strings.TrimPrefix(strings.TrimPrefix(name, "https://"), "http://")
	name, _, _ = strings.Cut(name, "/")
	switch name {
	case "", "docker.io", "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com":
		return "docker.io"
	}
	return name
}

// serverOf is the name under which a host's credentials are kept.
func serverOf(host string) string {
	if host == "docker.io" {
		return dockerHub
	}
	return host
}

// helper is the credential helper that has a host's credentials; "" for the
// file itself.
func (c *Credentials) helper(host string) string {
	for name, helper := range c.helpers {
		if RegistryHost(name) == host {
			return helper
		}
	}
	return c.store
}

// Get gives the credentials for a host. An identity token has the user
// "<token>". ok is false if there are none.
func (c *Credentials) Get(ctx context.Context, host string) (user, secret string, ok bool, err error) {
	if helper := c.helper(host); helper != "" {
		user, secret, err = getFrom(ctx, helper, serverOf(host))
		if user != "" || secret != "" || err != nil {
			return user, secret, err == nil, err
		}
	}
	for name, a := range c.auths {
		if RegistryHost(name) != host {
			continue
		}
		if a.IdentityToken != "" {
			return tokenUser, a.IdentityToken, true, nil
		}
		if a.Auth != "" {
			plain, err := base64.StdEncoding.DecodeString(a.Auth)
			user, secret, found := strings.Cut(string(plain), ":")
			if err != nil || !found {
				return "", "", false, fmt.Errorf("the entry for %s in %s can't be read; log in again", host, c.path)
			}
			return user, strings.TrimRight(secret, "\x00"), true, nil
		}
		if a.Username != "" {
			return a.Username, a.Password, true, nil
		}
	}
	return "", "", false, nil
}

// Set keeps the credentials for a host, in its helper or else in the file,
// and says where.
func (c *Credentials) Set(ctx context.Context, host, user, secret string) (where string, err error) {
	if helper := c.helper(host); helper != "" {
		entry, err := json.Marshal(helperEntry{serverOf(host), user, secret})
		if err != nil {
			return "", fmt.Errorf("keep the credentials of %s: %w", host, err)
		}
		if _, err := runHelper(ctx, helper, "store", entry); err != nil {
			return "", err
		}
		return "docker-credential-" + helper, nil
	}
	if c.auths == nil {
		c.auths = map[string]dockerAuth{}
	}
	c.auths[serverOf(host)] = dockerAuth{Auth: base64.StdEncoding.EncodeToString([]byte(user + ":" + secret))}
	return c.path, c.save()
}

// Remove forgets the credentials for a host; found is false if there were
// none.
func (c *Credentials) Remove(ctx context.Context, host string) (found bool, err error) {
	if helper := c.helper(host); helper != "" {
		user, secret, err := getFrom(ctx, helper, serverOf(host))
		if err != nil {
			return false, err
		}
		if found = user != "" || secret != ""; found {
			if _, err := runHelper(ctx, helper, "erase", []byte(serverOf(host))); err != nil {
				return false, err
			}
		}
	}
	changed := false
	for name := range c.auths {
		if RegistryHost(name) == host {
			delete(c.auths, name)
			changed = true
		}
	}
	if changed {
		return true, c.save()
	}
	return found, nil
}

// save writes the file whole, for its owner only.
func (c *Credentials) save() error {
	if c.path == "" {
		return errors.New("keep credentials: there is no home folder; set DOCKER_CONFIG")
	}
	path := c.path
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real // a link to a file elsewhere stays one
	}
	auths, err := json.Marshal(c.auths)
	if err != nil {
		return fmt.Errorf("write Docker's configuration: %w", err)
	}
	c.fields["auths"] = auths
	data, err := json.MarshalIndent(c.fields, "", "\t")
	if err != nil {
		return fmt.Errorf("write Docker's configuration: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("write Docker's configuration: %w", err)
	}
	// Not WriteFile, which keeps the mode that a file has: this one has secrets.
	f, err := renameio.NewPendingFile(path, renameio.WithStaticPermissions(0o600))
	if err != nil {
		return fmt.Errorf("write Docker's configuration: %w", err)
	}
	defer f.Cleanup() //nolint:errcheck // after success it does nothing, after a failure there is one error already
	if _, err = f.Write(append(data, '\n')); err == nil {
		err = f.CloseAtomicallyReplace()
	}
	if err != nil {
		return fmt.Errorf("write Docker's configuration: %w", err)
	}
	return nil
}

// helperEntry is what a credential helper reads and writes.
type helperEntry struct {
	ServerURL string
	Username  string
	Secret    string
}

// getFrom asks a helper; one that has nothing gives "".
func getFrom(ctx context.Context, helper, server string) (user, secret string, err error) {
	out, err := runHelper(ctx, helper, "get", []byte(server))
	if errors.Is(err, errNoCredentials) {
		return "", "", nil
	}
	if err != nil {
		return "", "", err
	}
	var e helperEntry
	if err := json.Unmarshal(out, &e); err != nil {
		return "", "", fmt.Errorf("docker-credential-%s answers with what is no JSON", helper)
	}
	return e.Username, e.Secret, nil
}

var errNoCredentials = errors.New("no credentials")

// runHelper runs docker-credential-HELPER as its protocol says: the argument
// on stdin, errors on stdout.
func runHelper(ctx context.Context, helper, verb string, input []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, helperLimit)
	defer cancel()
	program := "docker-credential-" + filepath.Base(helper)
	cmd := exec.CommandContext(ctx, program, verb)
	cmd.Stdin = bytes.NewReader(input)
	var out, told bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &told
	err := cmd.Run()
	if err == nil {
		return out.Bytes(), nil
	}
	if strings.Contains(out.String(), "credentials not found") {
		return nil, errNoCredentials
	}
	var exit *exec.ExitError
	text := strings.TrimSpace(cmp.Or(told.String(), out.String()))
	switch {
	case !errors.As(err, &exit):
		return nil, fmt.Errorf("credential helper: %w", err)
	case verb == "get": // its stdout may hold a secret
		text = strings.TrimSpace(told.String())
	}
	first, _, _ := strings.Cut(cmp.Or(text, err.Error()), "\n")
	return nil, fmt.Errorf("%s %s: %s", program, verb, first)
}
