package secrets

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"time"

	"filippo.io/age"
	"filippo.io/age/armor"
)

// SourceError is what keeps a content from being had from where it comes from,
// in words for a user; it tells nothing of the content.
type SourceError struct{ Problem, Hint string }

func (e *SourceError) Error() string { return e.Problem }

// Bounds of what is decrypted.
const (
	// maxAgeHeader bounds the recipients that are tried: each costs some 100 µs.
	maxAgeHeader = 256 << 10
	sopsTimeout  = 30 * time.Second
)

// Formats that Decrypt takes, beside "sops:" and a format of sops.
const (
	formatAge  = "age"
	formatSOPS = "sops:"
)

// Decrypt gives the plain form of a file that is encrypted in format, "age" or
// "sops:" and yaml, json, dotenv, ini or binary: at most limit bytes. What is
// wrong with the file is a SourceError.
func (s *Store) Decrypt(ctx context.Context, format string, content []byte, limit int) ([]byte, error) {
	readers, err := s.readers()
	if err != nil {
		return nil, err
	}
	if format == formatAge {
		return decryptAge(content, readers, limit)
	}
	kind, ok := strings.CutPrefix(format, formatSOPS)
	if !ok || !slices.Contains([]string{"yaml", "json", "dotenv", "ini", "binary"}, kind) {
		return nil, &SourceError{fmt.Sprintf("its file is encrypted in a way that this agent does not know (%q)", format), "bring berth and berthd to the same version"}
	}
	return s.decryptSOPS(ctx, kind, content, readers, limit)
}

const (
	hintForeign = "encrypt it to what `berth secret recipient` prints, too; x-decrypt: false delivers it as it is"
	hintDamaged = "take it from the repository again, or encrypt it again"
)

var errDamagedFile = &SourceError{"its file is damaged, or not whole", hintDamaged}

func tooLarge(limit int) error {
	return &SourceError{fmt.Sprintf("its content is larger than %d KiB", limit>>10), "it is to be one small file; mount what is larger with a volume"}
}

func decryptAge(content []byte, readers keys, limit int) ([]byte, error) {
	if !bytes.HasPrefix(content, []byte("age-encryption.org/")) {
		var err error
		if content, err = io.ReadAll(armor.NewReader(bytes.NewReader(content))); err != nil {
			return nil, errDamagedFile
		}
	}
	switch end := bytes.Index(content, []byte("\n--- ")); {
	case end < 0:
		return nil, errDamagedFile
	case end > maxAgeHeader:
		return nil, &SourceError{"its file has too many recipients", "encrypt it to fewer"}
	}
	plain, err := age.Decrypt(bytes.NewReader(content), readers...)
	var foreign *age.NoIdentityMatchError
	switch {
	case errors.As(err, &foreign):
		return nil, &SourceError{"its file is not encrypted to this host, but " + toWhom(foreign.StanzaTypes), hintForeign}
	case err != nil:
		return nil, errDamagedFile
	}
	out, err := io.ReadAll(io.LimitReader(plain, int64(limit)+1))
	switch {
	case err != nil:
		return nil, errDamagedFile
	case len(out) > limit:
		return nil, tooLarge(limit)
	}
	return out, nil
}

// toWhom says what the header of an age file tells of its recipients: their
// kinds, not who they are.
func toWhom(types []string) string {
	if slices.Contains(types, "scrypt") {
		return "with a passphrase"
	}
	count := map[string]int{}
	var order []string
	for _, t := range types {
		name := map[string]string{
			"X25519": "X25519", "mlkem768x25519": "post-quantum", "ssh-ed25519": "SSH", "ssh-rsa": "SSH",
		}[t]
		if name == "" {
			name = "unknown"
		}
		if count[name]++; count[name] == 1 {
			order = append(order, name)
		}
	}
	for i, name := range order {
		order[i] = fmt.Sprintf("%d %s", count[name], name)
	}
	if len(types) == 1 {
		return "to " + order[0] + " recipient"
	}
	return "to " + strings.Join(order, " and ") + " recipients"
}

// recipientForm finds age's recipients in the metadata of a SOPS file, which
// stand there in clear.
var recipientForm = regexp.MustCompile(`\bage1[0-9a-z]{40,}`)

// decryptSOPS has sops decrypt. It gets the file and the key in memory only,
// and no network: the file may name servers of its own to ask for keys.
func (s *Store) decryptSOPS(ctx context.Context, kind string, content []byte, readers keys, limit int) ([]byte, error) {
	key, err := sopsKey(content, readers)
	if err != nil {
		return nil, err
	}
	program, err := exec.LookPath("sops")
	if err != nil {
		return nil, &SourceError{
			"its file is encrypted with SOPS, and there is no sops on this host",
			"install sops (github.com/getsops/sops, one binary) where the agent's PATH leads; files of age need no program",
		}
	}
	out, err := (&child{
		program: program, args: []string{"-d", "--input-type", kind, "--output-type", kind, "/dev/stdin"},
		env:   []string{"HOME=" + s.cfg.Run, "SOPS_AGE_KEY=" + key},
		stdin: content, limit: limit, timeout: s.sopsTimeout, offline: true,
	}).run(ctx)
	var failed *childError
	switch {
	case err == nil:
		return out, nil
	case !errors.As(err, &failed):
		return nil, err
	case failed.why == childTooMuch:
		return nil, tooLarge(limit)
	case failed.why == childTimeout:
		return nil, &SourceError{fmt.Sprintf("sops did not end within %s", s.sopsTimeout), "try it on this host: " + program + " --version"}
	case failed.why == childExit && (failed.code == sopsBadTree || failed.code == sopsBadMAC):
		return nil, errDamagedFile
	case failed.why == childExit && failed.code == sopsNoKey:
		return nil, &SourceError{"its file names this host's recipient, but sops can't decrypt its key with it", "encrypt it again (sops updatekeys)"}
	}
	return nil, &SourceError{"sops " + failed.Error(), "try it on this host: sops decrypt FILE; sops 3.8 and later are known to work"}
}

// Exit codes of sops.
const (
	sopsBadTree = 25
	sopsBadMAC  = 51
	sopsNoKey   = 128
)

// sopsKey is what SOPS_AGE_KEY has to be: those of readers that the file is
// encrypted to. sops before 3.12 refuses to read hybrid ones.
func sopsKey(content []byte, readers keys) (string, error) {
	var named []string
	for _, r := range recipientForm.FindAll(content, -1) {
		if !slices.Contains(named, string(r)) {
			named = append(named, string(r))
		}
	}
	var fit keys
	for i, r := range readers.recipients("") {
		if slices.Contains(named, r.Recipient) {
			fit = append(fit, readers[i])
		}
	}
	if len(fit) > 0 {
		return fit.text(), nil
	}
	if len(named) == 0 {
		return "", &SourceError{"its file is encrypted with SOPS, but has no age recipient", hintForeign}
	}
	const most = 3
	for i, r := range named {
		if len(r) > 62 { // a hybrid one has some 2000
			named[i] = r[:24] + "…"
		}
	}
	if len(named) > most {
		named = append(named[:most], fmt.Sprintf("%d more", len(named)-most))
	}
	return "", &SourceError{"its file is not encrypted to this host, but to " + strings.Join(named, ", "), hintForeign}
}

// childEnv is what every child gets: nothing of the agent's environment but
// where programs are.
func childEnv() []string {
	path := os.Getenv("PATH")
	if path == "" {
		path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	}
	return []string{"PATH=" + path}
}
