package secrets

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"berth/testbed"
)

func TestDecrypt_Age_WhatIsWrong(t *testing.T) {
	s := newStore(t)
	classic, hybrid := recipients(t, s)
	other, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	phrase, err := age.NewScryptRecipient("correct horse")
	if err != nil {
		t.Fatal(err)
	}
	phrase.SetWorkFactor(10)
	sealed := sealTo(t, "swordfish", classic)
	many := slices.Repeat([]age.Recipient{other.Recipient()}, 3000)
	for _, c := range []struct {
		name    string
		file    []byte
		limit   int
		problem string
	}{
		{"somebody else's", sealTo(t, "x", other.Recipient().String()), 10, "not encrypted to this host, but to 1 X25519 recipient"},
		{"two others'", sealFor(t, "x", other.Recipient(), other.Recipient()), 10, "but to 2 X25519 recipients"},
		{"a passphrase", sealFor(t, "x", phrase), 10, "but with a passphrase"},
		{"cut off", sealed[:len(sealed)-1], 10, "damaged, or not whole"},
		{"header cut off", sealed[:30], 10, "damaged, or not whole"},
		{"armor cut off", armored(t, sealed)[:80], 10, "damaged, or not whole"},
		{"another version", bytes.Replace(sealed, []byte("/v1"), []byte("/v2"), 1), 10, "damaged"},
		{"too large", sealTo(t, strings.Repeat("x", 2049), hybrid), 2048, "larger than 2 KiB"},
		{"many recipients", sealFor(t, "x", many...), 10, "too many recipients"},
		{"nothing", nil, 10, "damaged"},
	} {
		_, err := s.Decrypt(t.Context(), "age", c.file, c.limit)
		if wantSourceError(t, err, c.problem); t.Failed() {
			t.Fatal(c.name)
		}
	}
	if got, err := s.Decrypt(t.Context(), "age", sealTo(t, strings.Repeat("x", 2048), hybrid), 2048); err != nil || len(got) != 2048 {
		t.Errorf("just small enough: %d bytes, %v", len(got), err)
	}
	for i := range sealed {
		bad := slices.Clone(sealed)
		bad[i] ^= 1
		if got, err := s.Decrypt(t.Context(), "age", bad, plainLimit); err == nil || got != nil {
			t.Errorf("byte %d: %q, %v", i, got, err)
		}
	}
	for _, format := range []string{"", "gpg", "sops:", "sops:--help"} {
		_, err := s.Decrypt(t.Context(), format, sealed, plainLimit)
		wantSourceError(t, err, "does not know")
	}
}

// sopsFile is one as far as it is looked at before sops is.
func sopsFile(recipients ...string) []byte {
	text := "key: ENC[AES256_GCM]\nsops:\n    age:\n"
	for _, r := range recipients {
		text += "        - recipient: " + r + "\n"
	}
	return []byte(text + "    mac: ENC[AES256_GCM]\n")
}

// fakeSOPS puts a script in front of PATH.
func fakeSOPS(t *testing.T, script string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "sops"), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
}

func TestDecrypt_SOPS_GetsTheFileAndTheKeyAndNothingElse(t *testing.T) {
	testbed.NeedKernel(t) // a network namespace
	s := newStore(t)
	classic, _ := recipients(t, s)
	t.Setenv("AWS_SECRET_ACCESS_KEY", "of the agent")
	fakeSOPS(t, `echo "$@"; cat /dev/stdin; env | grep -v -e ^PWD= -e ^_= -e ^SHLVL= | sort; grep -c : /proc/net/dev`)
	got, err := s.Decrypt(t.Context(), "sops:yaml", sopsFile("age1other"+strings.Repeat("q", 53), classic), plainLimit)
	if err != nil {
		t.Fatal(err)
	}
	text := string(got)
	for _, want := range []string{
		"-d --input-type yaml --output-type yaml /dev/stdin\nkey: ENC", "\nHOME=" + s.cfg.Run + "\nPATH=", "\nSOPS_AGE_KEY=AGE-SECRET-KEY-1",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q", want)
		}
	}
	if strings.Contains(text, "AWS") || strings.Count(text, "SECRET-KEY") != 1 || strings.Contains(text, "SECRET-KEY-PQ") || !strings.HasSuffix(text, "\n1\n") {
		t.Errorf("sops has more than it needs: %s", identityForm.ReplaceAllString(text, "***"))
	}
}

func TestDecrypt_SOPS_WhatIsWrong(t *testing.T) {
	testbed.NeedKernel(t)
	s := newStore(t)
	classic, hybrid := recipients(t, s)
	other := "age1" + strings.Repeat("q", 58)
	s.sopsTimeout = 300 * time.Millisecond
	for _, c := range []struct {
		name, script, problem string
		file                  []byte
	}{
		{"for others", "", "not encrypted to this host, but to " + other, sopsFile(other)},
		{"for many others", "", ", 2 more", sopsFile(other+"2", other+"3", other+"4", other+"5", other+"6")},
		{"for a hybrid other", "", "but to age1pq1" + strings.Repeat("q", 17) + "…", sopsFile("age1pq1" + strings.Repeat("q", 1950))},
		{"without age", "", "no age recipient", sopsFile()},
		{"no key", "exit 128", "sops can't decrypt its key", sopsFile(classic)},
		{"a bad MAC", "echo MAC mismatch. computed 0123 >&2; exit 51", "damaged, or not whole", sopsFile(hybrid)},
		{"a bad value", "exit 25", "damaged, or not whole", sopsFile(classic)},
		{"failing", "echo; echo no such flag >&2; exit 1", "sops failed with exit code 1: no such flag", sopsFile(classic)},
		{"talking of the key", `echo "bad key $SOPS_AGE_KEY" >&2; exit 1`, "exit code 1: bad key ***", sopsFile(classic)},
		{"killed", "kill -9 $$", "sops was ended by SIGKILL", sopsFile(classic)},
		{"hanging", "sleep 60 & echo $! >PIDFILE; sleep 60", "did not end within 300ms", sopsFile(classic)},
		{"too large", "head -c 600000 /dev/zero; sleep 60", "larger than 500 KiB", sopsFile(classic)},
	} {
		t.Run(c.name, func(t *testing.T) {
			pidfile := filepath.Join(t.TempDir(), "pid")
			fakeSOPS(t, strings.ReplaceAll(c.script, "PIDFILE", pidfile))
			_, err := s.Decrypt(t.Context(), "sops:yaml", c.file, plainLimit)
			wantSourceError(t, err, c.problem)
			wantGone(t, pidfile)
		})
	}
	t.Run("stopped", func(t *testing.T) {
		fakeSOPS(t, "sleep 60")
		s.sopsTimeout = time.Minute
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, err := s.Decrypt(ctx, "sops:yaml", sopsFile(classic), plainLimit); err == nil {
			t.Error("no error")
		}
	})
	t.Setenv("PATH", t.TempDir())
	_, err := s.Decrypt(t.Context(), "sops:yaml", sopsFile(classic), plainLimit)
	wantSourceError(t, err, "there is no sops on this host")
}

// wantGone waits for the end of the process whose number is in a file, if any.
func wantGone(t *testing.T, pidfile string) {
	t.Helper()
	text, err := os.ReadFile(pidfile)
	if err != nil {
		return
	}
	stat := "/proc/" + strings.TrimSpace(string(text)) + "/stat"
	for deadline := time.Now().Add(5 * time.Second); ; <-time.After(10 * time.Millisecond) {
		line, err := os.ReadFile(stat)
		if err != nil || strings.Contains(string(line), ") Z ") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("it lives on: %s", line)
		}
	}
}

// The real program, with every format that it writes.
func TestDecrypt_SOPS_Real(t *testing.T) {
	testbed.NeedKernel(t)
	t.Setenv("PATH", testbed.SOPS(t)+string(os.PathListSeparator)+os.Getenv("PATH"))
	s := newStore(t)
	classic, hybrid := recipients(t, s)
	dir := t.TempDir()
	for _, to := range []string{classic, hybrid} {
		for kind, content := range map[string]string{
			"yaml": "user: admin\npassword: swordfish\n", "json": "{\n\t\"password\": \"swordfish\"\n}\n",
			"dotenv": "PASSWORD=swordfish\n", "ini": "[db]\npassword = swordfish\n", "binary": "sword\x00fish",
		} {
			plain := filepath.Join(dir, "plain")
			if err := os.WriteFile(plain, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			sealed, err := exec.CommandContext(t.Context(), "sops", "-e", "--age", to, "--input-type", kind, "--output-type", kind, plain).Output()
			if err != nil {
				t.Fatalf("%s: %v", kind, err)
			}
			got, err := s.Decrypt(t.Context(), "sops:"+kind, sealed, plainLimit)
			if err != nil || strings.TrimSpace(string(got)) != strings.TrimSpace(content) {
				t.Errorf("%s: %q, %v", kind, got, err)
			}
			i := bytes.Index(sealed, []byte("data:")) + len("data:")
			sealed[i] = "AB"[max(0, 1-int(sealed[i]-'A'))%2]
			_, err = s.Decrypt(t.Context(), "sops:"+kind, sealed, plainLimit)
			wantSourceError(t, err, "damaged, or not whole")
			if bytes.Contains(fmt.Append(nil, err), []byte("swordfish")) {
				t.Error("the error tells the content")
			}
		}
	}
}

// FuzzDecrypt: a file of age that is changed anywhere gives what it holds, or
// nothing.
func FuzzDecrypt(f *testing.F) {
	// The fuzzer's processes must agree on it.
	id, err := age.ParseX25519Identity("AGE-SECRET-KEY-1W7LNMDF3ZR7ZGSU3LMGY23L8DESJMHDVY9JS6XHL5TXFYZ2H6J8QR3WK48")
	if err != nil {
		f.Fatal(err)
	}
	sealed := sealFor(f, "swordfish", id.Recipient())
	for _, file := range [][]byte{sealed, armored(f, sealed), sealed[:40], []byte("age-encryption.org/v1\n--- \n"), []byte("-----BEGIN AGE ENCRYPTED FILE-----")} {
		f.Add(file)
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		if got, err := decryptAge(file, keys{id}, plainLimit); err == nil && string(got) != "swordfish" {
			t.Errorf("it gives %q", got)
		}
		if _, err := sopsKey(file, keys{id}); err != nil && strings.Contains(err.Error(), "SECRET") {
			t.Errorf("the error tells the key: %v", err)
		}
	})
}
