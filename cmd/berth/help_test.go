package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
	"github.com/spf13/pflag"
)

// docs is where the reference of the commands stands, made from their help.
var docs = filepath.Join("..", "..", "docs", "cli")

// exitBlock is the EXIT STATUS of a help text, which becomes a block in
// Markdown.
var exitBlock = regexp.MustCompile(`EXIT STATUS\n((?:  .*\n)+)`)

// commands are berth and everything below it, but what cobra adds.
func commands(t *testing.T) []*cobra.Command {
	t.Helper()
	for _, name := range []string{"BERTH_ROOT", "BERTH_RUN", "BERTH_CONFIG", "COMPOSE_ANSI", "COMPOSE_PROGRESS", "COMPOSE_PARALLEL_LIMIT", "COMPOSE_REMOVE_ORPHANS"} {
		t.Setenv(name, "")
	}
	var all []*cobra.Command
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		all = append(all, cmd)
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk(newRoot(&app{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard}))
	return all
}

func TestHelp_EveryCommand_IsWrittenAsTheRest(t *testing.T) {
	for _, cmd := range commands(t) {
		path := cmd.CommandPath()
		switch short := cmd.Short; {
		case short == "":
			t.Errorf("%s has no short help", path)
		case strings.HasSuffix(short, "."), strings.ToUpper(short[:1]) != short[:1]:
			t.Errorf("%s: %q: want an imperative, no full stop", path, short)
		}
		if !strings.Contains(cmd.Long, "\nEXIT STATUS\n") {
			t.Errorf("%s does not say what it exits with", path)
		}
		for line := range strings.Lines(cmd.Long) {
			if n := len([]rune(strings.TrimRight(line, "\n"))); n > 76 {
				t.Errorf("%s: a line of %d characters: %s", path, n, line)
			}
		}
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if f.Usage == "" || strings.HasSuffix(f.Usage, ".") {
				t.Errorf("%s --%s: usage %q", path, f.Name, f.Usage)
			}
			if kind, _ := pflag.UnquoteUsage(f); kind == "stringArray" || kind == "string" && f.Name != "format" {
				t.Errorf("%s --%s does not name its value", path, f.Name)
			}
		})
	}
}

func TestHelp_GlobalFlags_StandBehindEveryCommandToo(t *testing.T) {
	for _, cmd := range commands(t) {
		for _, name := range []string{"file", "project-name", "profile", "env-file", "project-directory", "root", "run", "config"} {
			if cmd.Flags().Lookup(name) == nil {
				t.Errorf("%s has no --%s", cmd.CommandPath(), name)
			}
		}
	}
}

// TestHelp_Docs holds docs/cli against the help; -update writes it.
func TestHelp_Docs_AreWhatTheHelpSays(t *testing.T) {
	for _, cmd := range commands(t) {
		cmd.DisableAutoGenTag = true
		var text bytes.Buffer
		if err := doc.GenMarkdown(cmd, &text); err != nil {
			t.Fatal(err)
		}
		page := exitBlock.ReplaceAll(text.Bytes(), []byte("### Exit status\n\n```\n$1```\n"))
		file := filepath.Join(docs, strings.ReplaceAll(cmd.CommandPath(), " ", "_")+".md")
		if *update {
			if err := os.MkdirAll(docs, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, page, 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		written, err := os.ReadFile(file)
		if err != nil || !bytes.Equal(written, page) {
			t.Errorf("%s is out of date (%v): go test ./cmd/berth -run TestHelp_Docs -update", file, err)
		}
	}
}
