// Package ballot is what the parts of the voting example share: the two
// choices, the queue's message and the table.
package ballot

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	_ "github.com/lib/pq" // the driver of Open
)

// Queue is the Redis list of votes that wait for the worker.
const Queue = "votes"

// Choices are what can be voted for, by the letter that is stored.
var Choices = map[string]string{"a": "Cats", "b": "Dogs"}

// Vote is one message of the queue. A later vote of the same voter replaces
// the earlier one.
type Vote struct {
	Voter  string `json:"voter_id"`
	Choice string `json:"vote"`
}

// Table holds the counted votes.
type Table struct{ db *sql.DB }

// Open waits until the database answers and makes the table if there is none.
func Open(ctx context.Context, dsn string) (*Table, error) {
	db, err := sql.Open("postgres", dsn)
	if err != nil {
		return nil, fmt.Errorf("open the database: %w", err)
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		_, err = db.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS votes (id VARCHAR(255) PRIMARY KEY, vote VARCHAR(255) NOT NULL)`)
		if err == nil {
			return &Table{db}, nil
		}
		select {
		case <-ctx.Done():
			_ = db.Close()
			return nil, fmt.Errorf("make the table: %w", err)
		case <-tick.C:
		}
	}
}

// Count adds a vote or changes the voter's earlier one.
func (t *Table) Count(ctx context.Context, v Vote) error {
	_, err := t.db.ExecContext(ctx,
		`INSERT INTO votes (id, vote) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET vote = EXCLUDED.vote`, v.Voter, v.Choice)
	if err != nil {
		return fmt.Errorf("count the vote of %s: %w", v.Voter, err)
	}
	return nil
}

// Result returns the number of votes for each choice, zeros included.
func (t *Table) Result(ctx context.Context) (map[string]int, error) {
	result := map[string]int{}
	for letter := range Choices {
		result[letter] = 0
	}
	rows, err := t.db.QueryContext(ctx, `SELECT vote, COUNT(*) FROM votes GROUP BY vote`)
	if err != nil {
		return nil, fmt.Errorf("read the result: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var letter string
		var n int
		if err := rows.Scan(&letter, &n); err != nil {
			return nil, fmt.Errorf("read the result: %w", err)
		}
		result[letter] = n
	}
	return result, rows.Err()
}

// Ping says whether the database answers.
func (t *Table) Ping(ctx context.Context) error { return t.db.PingContext(ctx) }

// Close closes the connections.
func (t *Table) Close() error { return t.db.Close() }
