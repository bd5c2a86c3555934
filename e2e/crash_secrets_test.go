package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"berth/api"
)

// Files beside the Compose file, for the rounds with secrets.
const (
	wordFile   = "word.txt" // what the stack's secret is set to
	exportFile = "export.age"
	keyFile    = "key.txt" // opens the export
)

// secretRounds have the agent killed at every step of what people do with the
// store. What runs has its old value all the while.
var secretRounds = []round{{
	name: "a secret is rotated", ask: []string{"secret", "rotate", "word", "--file", wordFile}, again: true, ends: api.RolloutComplete,
	before: newWord("another word"), while: hasItsWord, after: gets("another word"),
	points: []string{"content.stored", "named.stored", "named.committed"},
}, {
	name: "a secret is set", ask: []string{"secret", "set", "word", "--file", wordFile}, again: true, late: true, ends: api.RolloutComplete,
	before: newWord("a third word"), while: hasItsWord, after: gets("a third word"),
	points: []string{"content.stored", "named.stored", "named.committed"},
}, {
	name: "a secret goes back", ask: []string{"secret", "rollback", "word"}, late: true, ends: api.RolloutComplete,
	before: newWord("unused"), while: hasItsWord, after: gets("another word"),
	points: []string{"named.stepped"},
}, {
	name: "secrets are encrypted anew", ask: []string{"secret", "rekey"}, still: true, ends: api.RolloutComplete,
	before: newWord("unused"), while: hasItsWord,
	after: func(t *testing.T, v *victim) {
		t.Helper()
		hasItsWord(t, v)
		text, err := os.ReadFile(filepath.Join(v.root, "secrets", "identity"))
		if n := strings.Count(string(text), "\n"); err != nil || n != 1 {
			t.Errorf("after a re-key there are %d identities, %v", n, err)
		}
	},
	points: []string{"rekey.begun", "rekey.content", "rekey.written"},
}, {
	name: "an export is brought back", again: true, late: true, ends: api.RolloutComplete,
	ask:    []string{"secret", "import", "--identity", keyFile, exportFile},
	before: exported, while: hasItsWord, after: gets("another word"),
	points: []string{"named.stored", "named.committed", "named.stored:2", "named.committed:2"},
}, {
	name: "a secret is removed", ask: []string{"secret", "rm", "spare"}, still: true, ends: api.RolloutComplete,
	before: newWord("unused"), while: hasItsWord,
	after: func(t *testing.T, v *victim) {
		t.Helper()
		if list := strings.Fields(v.must(t, "secret", "ls", "-q")); slices.Contains(list, "spare") {
			t.Errorf("there are still %v", list)
		}
		// The current word and the ones before it, and the configs of five
		// revisions at most: that of spare would be one more.
		v.holdsContents(t, "spare")
	},
	points: []string{"named.removed"},
}}

// newWord puts another word into the file, and notes which one db has.
func newWord(word string) func(*testing.T, *victim) {
	return func(t *testing.T, v *victim) {
		t.Helper()
		v.write(t, wordFile, word)
		v.notesWord(t)
	}
}

// notesWord remembers what db has, to be looked at when no agent runs.
func (v *victim) notesWord(t *testing.T) {
	t.Helper()
	eventually(t, 10*time.Second, func() error {
		for _, c := range v.ps(t, "db") {
			if c.State == api.TaskRunning {
				v.wordPid = v.inspect(t, c.ID).Pid
				v.word = v.readWord(t)
				return nil
			}
		}
		return fmt.Errorf("db does not run")
	})
}

func (v *victim) readWord(t *testing.T) string {
	t.Helper()
	word, err := os.ReadFile(fmt.Sprintf("/proc/%d/root/run/secrets/word", v.wordPid))
	if err != nil {
		t.Error(err)
	}
	return string(word)
}

// hasItsWord wants db to have what it had when the round began.
func hasItsWord(t *testing.T, v *victim) {
	t.Helper()
	if word := v.readWord(t); word != v.word {
		t.Errorf("db has %q and had %q", word, v.word)
	}
}

// gets wants db to have another word in the end.
func gets(word string) func(*testing.T, *victim) {
	return func(t *testing.T, v *victim) {
		t.Helper()
		if v.notesWord(t); v.word != word {
			t.Errorf("db has %q, want %q", v.word, word)
		}
	}
}

// exported makes an export of two secrets, both of which then change.
func exported(t *testing.T, v *victim) {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	v.write(t, keyFile, id.String()+"\n")
	v.feed(t, "spare", "-f", v.file, "secret", "set", "spare")
	v.must(t, "secret", "export", "--recipient", id.Recipient().String(), "-o", filepath.Join(filepath.Dir(v.file), exportFile))
	for _, name := range []string{"spare", "word"} {
		if r := v.feed(t, "later", "-f", v.file, "secret", "set", name); r.code != 0 {
			t.Fatal(r)
		}
	}
	v.must(t, up...)
	v.notesWord(t)
}

// holdsContents wants no more files of contents than there are versions and
// configs of revisions.
func (v *victim) holdsContents(t *testing.T, round string) {
	t.Helper()
	client := api.NewClient(api.Socket(v.run))
	defer client.Close()
	list, err := client.Contents(t.Context(), api.KindSecret, "")
	if err != nil {
		t.Fatal(err)
	}
	most := 0
	for _, c := range list {
		most += len(c.Versions)
	}
	history, err := client.History(t.Context(), v.name)
	if err != nil {
		t.Fatal(err)
	}
	most += 2 * len(history)
	files, err := filepath.Glob(filepath.Join(v.root, "secrets", "content", "*"))
	if err != nil || len(files) > most {
		t.Errorf("%s: %d contents are kept, want at most %d, %v", round, len(files), most, err)
	}
}
