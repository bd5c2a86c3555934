package agent

import (
	"testing"
	"time"
)

func TestReadiness_IsTimed_AndTheClockStartsAnewAfterABreak(t *testing.T) {
	simulate(t, func(b *bench) {
		fails := failing(b)
		begun := time.Now()
		b.up(stackOf("shop", service("web", "web:1", checked(time.Second, 2), unrestarted)))
		first := b.w.task(b.id("web/1.1"))
		if first.ReadyAt.Before(begun) || !first.ReadySince.Equal(first.ReadyAt) {
			t.Errorf("ready at %s, since %s, up began at %s", first.ReadyAt, first.ReadySince, begun)
		}
		fails.Store(true)
		b.pass(5 * time.Second)
		if task := b.w.task(first.ID); !task.ReadySince.IsZero() || !task.ReadyAt.Equal(first.ReadyAt) {
			t.Errorf("unready: ready at %s, since %s", task.ReadyAt, task.ReadySince)
		}
		broken := time.Now()
		fails.Store(false)
		b.pass(2 * time.Second)
		if task := b.w.task(first.ID); task.ReadySince.Before(broken) || !task.ReadyAt.Equal(first.ReadyAt) {
			t.Errorf("ready again: ready at %s, since %s", task.ReadyAt, task.ReadySince)
		}
	})
}

func TestReadiness_EndsWithTheTask(t *testing.T) {
	simulate(t, func(b *bench) {
		b.up(stackOf("shop", service("web", "web:1", unrestarted)))
		id := b.id("web/1.1")
		if b.w.task(id).ReadySince.IsZero() {
			t.Fatal("not ready")
		}
		b.containers.exit(id, 3)
		b.pass(time.Second)
		if task := b.w.task(id); !task.ReadySince.IsZero() || task.ReadyAt.IsZero() {
			t.Errorf("exited: ready at %s, since %s", task.ReadyAt, task.ReadySince)
		}
	})
}
