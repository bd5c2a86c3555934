package main

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

type fakeContender struct {
	steps *[]string
	fail  string
}

func (f fakeContender) name() string { return "fake" }

func (f fakeContender) step(name string) error {
	*f.steps = append(*f.steps, name)
	if f.fail == name {
		return errors.New("no")
	}
	return nil
}

func (f fakeContender) up(context.Context) error    { return f.step("up") }
func (f fakeContender) again(context.Context) error { return f.step("again") }
func (f fakeContender) look(context.Context) error  { return f.step("look") }
func (f fakeContender) down(context.Context) error  { return f.step("down") }

func TestMeasure_EachRound_LooksWhileEverythingIsUp(t *testing.T) {
	var steps []string
	results, err := measure(t.Context(), []contender{fakeContender{steps: &steps}}, 2)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(steps, " "), "up again look down up again look down"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if r := results[0]; r.name != "fake" || len(r.up) != 2 || len(r.again) != 2 || len(r.down) != 2 {
		t.Errorf("got %+v", r)
	}
}

func TestMeasure_StepFails_SaysWhoseAndWhich(t *testing.T) {
	var steps []string
	_, err := measure(t.Context(), []contender{fakeContender{&steps, "again"}}, 3)
	if err == nil || err.Error() != "fake: up again: no" {
		t.Errorf("got %v", err)
	}
}

func TestMedian_OddAndEvenNumbers(t *testing.T) {
	if got := median([]time.Duration{3, 1, 2}); got != 2 {
		t.Errorf("median of three is %d", got)
	}
	if got := median([]time.Duration{40, 10, 20, 30}); got != 25 {
		t.Errorf("median of four is %d", got)
	}
}

func TestRollup_ThisProcess_HasMemory(t *testing.T) {
	rss, pss, err := rollup(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if rss < 1<<20 || pss == 0 || pss > rss {
		t.Errorf("resident %d, proportional %d", rss, pss)
	}
}

func TestWriteCompose_AsManyServicesAsAsked(t *testing.T) {
	file, err := writeCompose(t.TempDir(), 50)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), "image: "+image); n != 50 {
		t.Errorf("%d services", n)
	}
}
