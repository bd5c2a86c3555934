// Command worker takes votes from the Redis list and counts them in Postgres.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"

	"berth/examples/resp"
	"berth/examples/voting/ballot"
)

func main() {
	log.SetFlags(0)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	if err := run(ctx); err != nil && ctx.Err() == nil {
		stop()
		log.Fatal("worker: ", err)
	}
	stop()
}

func run(ctx context.Context) error {
	table, err := ballot.Open(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	defer table.Close()
	queue := resp.New(cmp.Or(os.Getenv("REDIS"), "redis:6379"), "")
	log.Print("worker: counting votes")
	for ctx.Err() == nil {
		if err := next(ctx, queue, table); err != nil {
			log.Print("worker: ", err)
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	}
	return nil
}

// next waits for one vote, at most a second, and counts it. A vote that
// can't be counted now goes back to the head of the list.
func next(ctx context.Context, queue *resp.Client, table *ballot.Table) error {
	reply, err := queue.Do(ctx, "BLPOP", ballot.Queue, "1")
	if errors.Is(err, resp.ErrNil) {
		return nil
	}
	if err != nil {
		return err
	}
	pair, ok := reply.([]any)
	if !ok || len(pair) != 2 {
		return fmt.Errorf("unexpected reply %v", reply)
	}
	text, _ := pair[1].(string)
	var vote ballot.Vote
	if err := json.Unmarshal([]byte(text), &vote); err != nil {
		return fmt.Errorf("drop a vote that can't be read: %w", err)
	}
	if err := table.Count(context.WithoutCancel(ctx), vote); err != nil {
		_, back := queue.Do(context.WithoutCancel(ctx), "LPUSH", ballot.Queue, text)
		return errors.Join(err, back)
	}
	log.Printf("worker: counted %q", vote.Choice)
	return nil
}
