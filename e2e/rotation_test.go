package e2e_test

import (
	"crypto/rand"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"berth/testbed"
)

// ledger is a database and three services that log in to it with a secret.
const ledger = `
services:
  db:
    image: postgres:15-alpine
    environment: {POSTGRES_PASSWORD_FILE: /run/secrets/admin}
    secrets: [admin]
    healthcheck: {test: [CMD, pg_isready, -h, 127.0.0.1, -U, postgres], interval: 5s, start_period: 30s, start_interval: 200ms}
  one: &web
    image: berth-testbed/dbclient
    environment: {LOGIN: /run/secrets/login}
    secrets: [login]
    ports: ["8181:8080"]
    depends_on: {db: {condition: service_healthy}}
    healthcheck: {test: [CMD, /app, -check], interval: 5s, start_period: 10s, start_interval: 200ms}
    x-drain: 5s
    deploy: {update_config: {monitor: 0s}}
  two:
    <<: *web
    ports: ["8182:8080"]
  three:
    <<: *web
    ports: ["8183:8080"]
secrets:
  admin: {external: true}
  login: {external: true} # changes
`

// TestRotation_OfADatabasePassword_NoRequestFails does what docs/secrets.md
// tells: the database knows two users, of which one is not in use.
func TestRotation_OfADatabasePassword_NoRequestFails(t *testing.T) {
	testbed.NeedKernel(t)
	m := newMachine(t)
	s := m.stack(t, "ledger", ledger)
	s.secret(t, "set", "admin", rand.Text())
	password := rand.Text()
	s.secret(t, "set", "login", login("app_a", password))
	s.up(t, "db")
	s.sql(t, `CREATE ROLE app_a LOGIN PASSWORD '`+password+`'; CREATE ROLE app_b NOLOGIN;`)
	s.up(t)

	loads := map[string]*load{}
	for i, name := range []string{"one", "two", "three"} {
		loads[name] = begin(t, fmt.Sprintf("http://127.0.0.1:%d/", 8181+i), 2, 20*time.Millisecond)
	}
	rotate := func(to, from string) (before, after map[string]int) {
		t.Helper()
		begin, before := time.Now(), s.pids(t)
		password := rand.Text()
		s.sql(t, `ALTER ROLE `+to+` LOGIN PASSWORD '`+password+`';`)
		s.secret(t, "rotate", "login", login(to, password))
		for i := range 3 {
			eventually(t, 5*time.Second, func() error { return isAsked(8181+i, to) })
		}
		s.sql(t, `ALTER ROLE `+from+` NOLOGIN PASSWORD NULL;`)
		for i := range 3 {
			if err := isAsked(8181+i, to); err != nil {
				t.Error(err)
			}
		}
		t.Logf("from %s to %s: %s", from, to, time.Since(begin).Round(10*time.Millisecond))
		return before, s.pids(t)
	}
	db := s.only(t, "db").ID
	for _, r := range [][2]string{{"app_b", "app_a"}, {"app_a", "app_b"}} {
		before, after := rotate(r[0], r[1])
		if before[db] == 0 || before[db] != after[db] {
			t.Errorf("the database was touched: %v, %v", before, after)
		}
		for id := range before {
			if _, stays := after[id]; stays && id != db {
				t.Errorf("task %s has the former login", id)
			}
		}
	}

	// In place: the services read the file again when they are told.
	s.edit(t, "{external: true} # changes", `{external: true, x-on-change: "signal:HUP"}`)
	s.up(t)
	if before, after := rotate("app_b", "app_a"); !maps.Equal(before, after) {
		t.Errorf("tasks were replaced: %v, %v", before, after)
	}

	for name, l := range loads {
		l.end()
		users := map[string]int{}
		for answer, n := range l.answers() {
			user, _, _ := strings.Cut(answer, " ")
			users[user] += n
		}
		t.Logf("%s answered: %v", name, users)
		if failed := l.failures(); len(failed) > 0 {
			t.Errorf("%s: %d requests failed, the first with\n%s", name, len(failed), strings.Join(failed[:min(5, len(failed))], "\n"))
		}
		if users["app_a"] == 0 || users["app_b"] == 0 || len(users) != 2 {
			t.Errorf("%s was asked by %v", name, users)
		}
	}
}

func login(user, password string) string {
	return fmt.Sprintf("postgres://%s:%s@db/postgres?sslmode=disable", user, password)
}

// isAsked wants a service to ask the database as a user.
func isAsked(port int, user string) error {
	answer, err := fetch(fmt.Sprintf("http://127.0.0.1:%d/", port))
	if err == nil && !strings.HasPrefix(answer, user+" ") {
		err = fmt.Errorf("port %d still asks as %q", port, answer)
	}
	return err
}

// secret gives a secret a value through stdin, as people should.
func (s *stack) secret(t *testing.T, verb, name, value string) result {
	t.Helper()
	r := s.feed(t, value, "-f", s.file, "secret", verb, name)
	if r.code != 0 {
		t.Fatal(r)
	}
	return r
}

// sql has the database carry statements out.
func (s *stack) sql(t *testing.T, statements string) {
	t.Helper()
	if r := s.feed(t, statements, "-f", s.file, "exec", "-T", "db", "psql", "-U", "postgres", "-v", "ON_ERROR_STOP=1", "-q"); r.code != 0 {
		t.Fatal(r)
	}
}
