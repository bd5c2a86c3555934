package rollout

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"berth/testbed/load"
)

// ledger is a database and services that log in to it with a secret. It is
// filled with what the secret says of changes.
const ledger = `name: ledger
services:
  db:
    image: postgres:15-alpine
    pull_policy: never
    environment: {POSTGRES_HOST_AUTH_METHOD: scram-sha-256, POSTGRES_PASSWORD_FILE: /run/secrets/admin}
    secrets: [admin]
    healthcheck: {test: [CMD, pg_isready, -h, 127.0.0.1, -U, postgres], interval: 5s, start_period: 30s, start_interval: 250ms}
  one: &web
    image: berth-testbed/dbclient
    pull_policy: never
    environment: {LOGIN: /run/secrets/login}
    secrets: [login]
    ports: ["8081:8080"]
    depends_on: {db: {condition: service_healthy}}
    healthcheck: {test: [CMD, /app, -check], interval: 5s, timeout: 3s, start_period: 10s, start_interval: 250ms}
    x-drain: ` + rolloutDrain + `
    deploy: {update_config: {monitor: ` + rolloutMonitor + `}}
  two:
    <<: *web
    ports: ["8082:8080"]
  three:
    <<: *web
    ports: ["8083:8080"]
secrets:
  admin: {external: true}
  login: {external: true%s}
`

// secretsRate is asked of the three services together; each request makes the
// service ask its database.
const secretsRate = 300

// Secrets rotates the password that three services have for their database,
// while they serve: first they are rolled, then they get it in place.
func Secrets(ctx context.Context, o Options) error {
	return on(ctx, o, "secrets", func(m *machine, n *neighbour) (err error) {
		for _, ref := range []string{"postgres:15-alpine", "berth-testbed/dbclient"} {
			archive, err := o.Fixture(ctx, ref)
			if err != nil {
				return err
			}
			if r := m.berth(ctx, "image", "load", "-i", archive); r.code != 0 {
				return r
			}
		}
		l := &ledgerStack{stack: m.stack("ledger"), user: "app_a"}
		defer func() { err = errors.Join(err, l.down()) }()
		if err := l.begin(ctx); err != nil {
			return err
		}
		fmt.Fprintf(o.Out, "a password of postgres that 3 services use is rotated %d times by a rollout, %d times in place; monitor %s, x-drain %s; %d requests/s from outside\n",
			o.Rotations, o.Rotations, rolloutMonitor, rolloutDrain, secretsRate)
		clients := load.Start(n.published(service{name: "one", port: 8081}, service{name: "two", port: 8082}, service{name: "three", port: 8083}),
			load.Clients{Requests: secretsRate})
		windows, wrong, err := l.rotations(ctx, o)
		result := clients.Stop()
		wrong = append(wrong, reportLoad(o.Out, result, windows, "rotations")...)
		return errors.Join(err, missed(wrong))
	})
}

// ledgerStack knows which of the database's two users is in use.
type ledgerStack struct {
	*stack
	user string
}

func (l *ledgerStack) write(change string) error {
	if err := os.MkdirAll(filepath.Dir(l.file), 0o755); err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	if err := os.WriteFile(l.file, fmt.Appendf(nil, ledger, change), 0o644); err != nil {
		return fmt.Errorf("write the Compose file: %w", err)
	}
	return nil
}

func (l *ledgerStack) begin(ctx context.Context) error {
	if err := l.write(""); err != nil {
		return err
	}
	password := rand.Text()
	return l.all(
		func() error { return l.must(ctx, rand.Text(), "secret", "set", "admin") },
		func() error { return l.must(ctx, login("app_a", password), "secret", "set", "login") },
		func() error { return l.must(ctx, "", "up", "-d", "db") },
		func() error {
			return l.sql(ctx, "CREATE ROLE app_a LOGIN PASSWORD '"+password+"'; CREATE ROLE app_b NOLOGIN;")
		},
		func() error { return l.must(ctx, "", "up", "-d") },
	)
}

// all does one step after the other, until one fails.
func (l *ledgerStack) all(steps ...func() error) error {
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (l *ledgerStack) must(ctx context.Context, stdin string, args ...string) error {
	if r := l.feed(ctx, stdin, append([]string{"-f", l.file}, args...)...); r.code != 0 {
		return r
	}
	return nil
}

func (l *ledgerStack) sql(ctx context.Context, statements string) error {
	return l.must(ctx, statements, "exec", "-T", "db", "psql", "-U", "postgres", "-v", "ON_ERROR_STOP=1", "-q")
}

func login(user, password string) string {
	return fmt.Sprintf("postgres://%s:%s@db/postgres?sslmode=disable", user, password)
}

// rotations carries both kinds out and says what they took.
func (l *ledgerStack) rotations(ctx context.Context, o Options) (windows []window, wrong []string, err error) {
	for _, kind := range []struct{ name, change string }{{"rolled", ""}, {"in place", `, x-on-change: "signal:HUP"`}} {
		if err := l.write(kind.change); err != nil {
			return windows, wrong, err
		}
		if err := l.must(ctx, "", "up", "-d"); err != nil {
			return windows, wrong, err
		}
		var took []time.Duration
		for i := range o.Rotations {
			if !sleep(ctx, time.Second) {
				return windows, wrong, ctx.Err()
			}
			before, err := l.pids(ctx)
			if err != nil {
				return windows, wrong, err
			}
			w := window{name: fmt.Sprintf("rotation %d, %s", i+1, kind.name), begin: time.Now()}
			if err := l.rotate(ctx); err != nil {
				return windows, wrong, err
			}
			w.end = time.Now()
			windows = append(windows, w)
			took = append(took, w.end.Sub(w.begin))
			after, err := l.pids(ctx)
			if err != nil {
				return windows, wrong, err
			}
			if same := maps.Equal(before, after); same != (kind.change != "") {
				wrong = append(wrong, fmt.Sprintf("%s: the processes were %v and are %v", w.name, before, after))
			}
		}
		fmt.Fprintf(o.Out, "%-8s %3d rotations, took %.2f s (median), at most %.2f s\n", kind.name, len(took), spreadOf(took).p50.Seconds(), slices.Max(took).Seconds())
	}
	return windows, wrong, nil
}

// rotate is what docs/secrets.md tells: the user that is not in use gets a
// password, the services change to it, the former user is locked out.
func (l *ledgerStack) rotate(ctx context.Context) error {
	from, to, password := l.user, map[string]string{"app_a": "app_b", "app_b": "app_a"}[l.user], rand.Text()
	l.user = to
	return l.all(
		func() error { return l.sql(ctx, "ALTER ROLE "+to+" LOGIN PASSWORD '"+password+"';") },
		func() error { return l.must(ctx, login(to, password), "secret", "rotate", "login") },
		func() error {
			ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
			defer cancel()
			return poll(ctx, 20*time.Millisecond, func() error { return l.connects(ctx, from) })
		},
		func() error { return l.sql(ctx, "ALTER ROLE "+from+" NOLOGIN PASSWORD NULL;") },
	)
}

// connects is an error as long as a user has connections: signalled programs
// need a moment.
func (l *ledgerStack) connects(ctx context.Context, user string) error {
	return l.sql(ctx, "DO $$ BEGIN IF EXISTS (SELECT FROM pg_stat_activity WHERE usename = '"+user+"') THEN RAISE 'there are some'; END IF; END $$;")
}
