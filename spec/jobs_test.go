package spec_test

import (
	"testing"
	"time"

	"berth/spec"
)

func TestSchedule_Next_KeepsToTheClockOfItsZone(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Skip("SKIPPED: this machine has no time zones")
	}
	at := func(month time.Month, day, hour, minute int) time.Time {
		return time.Date(2026, month, day, hour, minute, 0, 0, berlin)
	}
	for _, c := range []struct {
		name, cron  string
		after, want time.Time
	}{
		{"every day at the same hour, over the change to summer", "0 9 * * *", at(3, 28, 10, 0), at(3, 29, 9, 0)},
		{"every day at the same hour, over the change back", "0 9 * * *", at(10, 24, 10, 0), at(10, 25, 9, 0)},
		{"an hour that the change leaves out comes later by the clock", "30 2 * * *", at(3, 28, 3, 0), time.Date(2026, 3, 29, 1, 30, 0, 0, time.UTC)},
		{"an hour that there is twice fires", "30 2 * * *", at(10, 24, 3, 0), time.Date(2026, 10, 25, 0, 30, 0, 0, time.UTC)},
		{"and fires once", "30 2 * * *", time.Date(2026, 10, 25, 0, 30, 0, 0, time.UTC), at(10, 26, 2, 30)},
		{"what is hourly fires in both hours", "30 * * * *", time.Date(2026, 10, 25, 0, 30, 0, 0, time.UTC), time.Date(2026, 10, 25, 1, 30, 0, 0, time.UTC)},
		{"monthly", "@monthly", at(1, 31, 0, 0), at(2, 1, 0, 0)},
	} {
		s := spec.Schedule{Cron: c.cron, Timezone: "Europe/Berlin"}
		got, err := s.Next(c.after)
		if err != nil || !got.Equal(c.want) {
			t.Errorf("%s: %s, %v; want %s", c.name, got, err, c.want)
		}
	}
	for _, bad := range []spec.Schedule{{Cron: ""}, {Cron: "* * * *"}, {Cron: "TZ=UTC 0 0 * * *"}, {Cron: "0 0 * * *", Timezone: "Mars/Olympus"}} {
		if _, err := bad.Next(at(1, 1, 0, 0)); err == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
}
