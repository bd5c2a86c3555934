package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"berth/cli"
)

func newInit(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "init [FOLDER]",
		Short: "Write a compose.yaml to begin with",
		Long: `Write a commented compose.yaml for what is in the folder: with a
Dockerfile the service is built from it, else the image follows from the
files (package.json, go.mod, requirements.txt and the like). It asks
nothing and overwrites nothing. With --dry-run it only prints the file.` + exitStatus(),
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			dir := "."
			if len(args) > 0 {
				dir = args[0]
			}
			return a.init(dir)
		},
	}
}

// composeFiles are the names under which a Compose file is found.
var composeFiles = []string{"compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"}

func (a *app) init(dir string) error {
	text, what, err := starter(dir)
	if err != nil {
		return err
	}
	if a.global.dryRun {
		_, err := fmt.Fprint(a.stdout, text)
		return err
	}
	for _, name := range composeFiles {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			return hinted{fmt.Errorf("%s is there already and stays as it is", filepath.Join(dir, name)), "berth --dry-run init prints what init would write"}
		}
	}
	path := filepath.Join(dir, composeFiles[0])
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	fmt.Fprintf(a.stdout, "wrote %s for %s; look through it, then `berth up`\n", cli.Escape(path), what)
	return nil
}

// kit is how what is in a folder is run without a Dockerfile.
type kit struct {
	file, what     string
	image, command string
	dir            string // where the folder is mounted
	port           int
	readOnly       bool
}

// kits are looked through in order: what leads decides.
var kits = []kit{
	{file: "package.json", what: "Node.js", image: "node:lts-alpine", command: "sh -c 'npm install && npm start'", dir: "/app", port: 3000},
	{file: "manage.py", what: "Django", image: "python:3-slim", command: "sh -c 'pip install -r requirements.txt && python manage.py runserver 0.0.0.0:8000'", dir: "/app", port: 8000},
	{file: "requirements.txt", what: "Python", image: "python:3-slim", command: "sh -c 'pip install -r requirements.txt && python app.py'", dir: "/app", port: 8000},
	{file: "pyproject.toml", what: "Python", image: "python:3-slim", command: "sh -c 'pip install . && python -m app'", dir: "/app", port: 8000},
	{file: "go.mod", what: "Go", image: "golang:1", command: "go run .", dir: "/src", port: 8080},
	{file: "Cargo.toml", what: "Rust", image: "rust:1", command: "cargo run", dir: "/src", port: 8080},
	{file: "pom.xml", what: "Java (Maven)", image: "maven:3", command: "mvn spring-boot:run", dir: "/src", port: 8080},
	{file: "build.gradle", what: "Java (Gradle)", image: "gradle:8", command: "gradle bootRun", dir: "/src", port: 8080},
	{file: "Gemfile", what: "Ruby", image: "ruby:3", command: "sh -c 'bundle install && bundle exec rackup -o 0.0.0.0 -p 3000'", dir: "/app", port: 3000},
	{file: "composer.json", what: "PHP", image: "php:8-apache", dir: "/var/www/html", port: 80},
	{file: "index.php", what: "PHP", image: "php:8-apache", dir: "/var/www/html", port: 80},
	{file: "index.html", what: "a static site", image: "nginx:alpine", dir: "/usr/share/nginx/html", port: 80, readOnly: true},
}

// starter is a Compose file for a folder, and what it takes the folder for.
func starter(dir string) (text, what string, err error) {
	if info, err := os.Stat(dir); err != nil {
		return "", "", err
	} else if !info.IsDir() {
		return "", "", fmt.Errorf("%s is no folder", dir)
	}
	var b strings.Builder
	b.WriteString("# What runs here. `berth plan` shows what would be done, `berth up` does it.\nservices:\n  app:\n")
	var port int
	switch docker, err := os.Open(filepath.Join(dir, "Dockerfile")); {
	case err == nil:
		defer docker.Close()
		what, port = "a Dockerfile", exposed(docker)
		b.WriteString("    build: .\n    # What the build is called, and where `berth push` sends it:\n    # image: registry.example/app:1.0\n")
	case errors.Is(err, fs.ErrNotExist):
		k := kitOf(dir)
		what, port = k.what, k.port
		k.write(&b)
	default:
		return "", "", err
	}
	fmt.Fprintf(&b, "    ports:\n      - \"8080:%d\"   # HOST:CONTAINER\n", port)
	fmt.Fprintf(&b, `    restart: unless-stopped
    # environment:
    #   LOG_LEVEL: info
    # Traffic waits until this answers; a version that never does is rolled back.
    # x-readiness:
    #   http: {port: %d, path: /}
    # depends_on:
    #   db: {condition: service_healthy}

  # db:
  #   image: postgres:17
  #   environment:
  #     POSTGRES_PASSWORD_FILE: /run/secrets/db_password
  #   secrets: [db_password]
  #   volumes: [data:/var/lib/postgresql/data]
  #   healthcheck:
  #     test: ["CMD-SHELL", "pg_isready -U postgres"]
  #     interval: 5s

# volumes:
#   data:

# secrets:
#   db_password:
#     file: ./db_password.txt
`, port)
	return b.String(), what, nil
}

// kitOf finds what a folder holds; a static server for one that says nothing.
func kitOf(dir string) kit {
	for _, k := range kits {
		if _, err := os.Stat(filepath.Join(dir, k.file)); err == nil {
			return k
		}
	}
	return kit{what: "a web server to begin with", image: "nginx:alpine", port: 80}
}

func (k kit) write(b *strings.Builder) {
	fmt.Fprintf(b, "    image: %s\n", k.image)
	if k.command != "" {
		fmt.Fprintf(b, "    command: %s\n", k.command)
	}
	if k.dir == "" {
		return
	}
	mode := ""
	if k.readOnly {
		mode = ":ro"
	}
	fmt.Fprintf(b, "    working_dir: %s\n    volumes:\n      - .:%s%s   # this folder\n", k.dir, k.dir, mode)
}

var exposeLine = regexp.MustCompile(`(?i)^\s*EXPOSE\s+(\d{1,5})(/tcp)?\s*`)

// exposed is the first port that a Dockerfile exposes, 8080 if it does not
// say.
func exposed(f fs.File) int {
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if m := exposeLine.FindStringSubmatch(lines.Text()); m != nil {
			port := 0
			if _, err := fmt.Sscan(m[1], &port); err == nil && port > 0 && port < 1<<16 {
				return port
			}
		}
	}
	return 8080
}
