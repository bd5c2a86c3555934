package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"

	"berth/api"
	"berth/cli"
)

// attached applies, follows the logs, and ends as Compose's `up` does: when
// everything has exited, when a flag says that one exit is enough, or with
// Ctrl-C, which stops the stack, and a second one, which kills it.
func (r *rollout) attached(ctx context.Context) error {
	interrupts := make(chan os.Signal, 2)
	signal.Notify(interrupts, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(interrupts)
	return r.attachedUntil(ctx, interrupts)
}

// attachedUntil is attached with its interrupts. ctx ends with the first of
// them, too, so the work goes on in a context of its own.
func (r *rollout) attachedUntil(ctx context.Context, interrupts <-chan os.Signal) error {
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	applied := make(chan error, 1)
	go func() { applied <- r.apply(work) }()
	select {
	case err := <-applied:
		if err != nil && !r.decided(ctx) {
			return err
		}
	case <-interrupts:
		cancel()
		<-applied // it was cancelled, whatever it says
		return r.interrupted(ctx, interrupts)
	}

	follow, stopFollowing := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan attachEnd, 1)
	go func() { ended <- r.follow(follow) }()
	var watch sync.WaitGroup
	if r.watching != nil {
		watch.Go(func() { r.watching.report(r.watching.run(follow)) })
	}
	defer watch.Wait()
	defer func() { stopFollowing() }()
	select {
	case end := <-ended:
		if end.abort {
			fmt.Fprintf(r.stderr, "%s exited (%d): stopping the stack\n", cli.Escape(end.task.Name), end.task.ExitCode)
			if err := r.stop(context.WithoutCancel(ctx), api.ActionStop); err != nil {
				return err
			}
			if r.options.exitCodeFrom != "" { // by now it has ended, too
				if status, err := r.client.Stack(context.WithoutCancel(ctx), r.request.Stack.Name); err == nil {
					return exit{code: r.abortCode(status, end.task)}
				}
			}
		}
		return end.err
	case <-interrupts:
		err := r.interrupted(ctx, interrupts)
		stopFollowing()
		<-ended
		return err
	}
}

// decided says that a container has exited whose exit a flag asks to wait for:
// what follows is its logs, the end of the stack and its code, even if the
// rollout counts it as a failure.
func (r *rollout) decided(ctx context.Context) bool {
	status, err := r.client.Stack(ctx, r.request.Stack.Name)
	if err != nil {
		return false
	}
	end, _ := r.judge(status)
	return end.task.ID != ""
}

// interrupted stops the stack and, interrupted again, kills it.
func (r *rollout) interrupted(ctx context.Context, again <-chan os.Signal) error {
	fmt.Fprintln(r.stderr, "\nstopping the stack (Ctrl-C again kills it)")
	stopping, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stopped := make(chan error, 1)
	go func() { stopped <- r.stop(stopping, api.ActionStop) }()
	select {
	case err := <-stopped:
		if err != nil {
			return exit{exitInterrupted, err}
		}
	case <-again:
		cancel()
		<-stopped // the kill decides
		err := r.stop(context.WithoutCancel(ctx), api.ActionKill)
		if p := (*api.Error)(nil); errors.As(err, &p) && p.Code == api.CodeConflict {
			err = nil // they had stopped already
		}
		if err != nil {
			return exit{exitInterrupted, err}
		}
	}
	return exit{code: exitInterrupted}
}

// stop acts on the services of this `up`. Its progress is plain lines, as
// logs may still be coming.
func (r *rollout) stop(ctx context.Context, action string) error {
	progress, err := cli.NewProgress(r.err(), cli.ProgressPlain)
	if err != nil {
		return err
	}
	defer progress.Close()
	req := api.ActionRequest{Action: action, Services: r.request.Services, Timeout: r.options.timeout}
	for p, err := range r.client.Action(ctx, r.request.Stack.Name, req) {
		if err != nil {
			return err
		}
		progress.Handle(p)
		if p.Done != nil {
			return outcome(*p.Done)
		}
	}
	return nil
}

// attachEnd is why attached logs ended.
type attachEnd struct {
	err   error
	abort bool     // a flag asks to stop the rest
	task  api.Task // whose exit it was
}

// settle is how long after the end of the last container its log may be
// silent before it is taken to be complete.
const settle = 200 * time.Millisecond

// follow prints logs until there is nothing left to run, or ctx ends.
func (r *rollout) follow(ctx context.Context) attachEnd {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	lines := make(chan struct{}, 1)
	printed := make(chan error, 1)
	var wg sync.WaitGroup
	wg.Go(func() { printed <- r.printLogs(ctx, lines) })
	watched := make(chan attachEnd, 1)
	wg.Go(func() { watched <- r.watch(ctx) })
	defer wg.Wait()
	defer cancel()

	select {
	case end := <-watched:
		if end.err == nil || end.abort {
			awaitSilence(ctx, lines, settle)
		}
		return end
	case err := <-printed:
		if err != nil {
			return attachEnd{err: err}
		}
		return <-watched
	}
}

// awaitSilence returns when nothing came for d.
func awaitSilence(ctx context.Context, lines <-chan struct{}, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		select {
		case <-lines:
			timer.Reset(d)
		case <-timer.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// attachable are the services whose logs are followed: those named, or all,
// without what `attach: false` and --no-attach leave out.
func (r *rollout) attachable() []string {
	var services []string
	for name, service := range r.request.Stack.Services {
		chosen := len(r.named) == 0 || slices.Contains(r.named, name) || r.options.attachDependencies
		silent := service.Attach != nil && !*service.Attach && !slices.Contains(r.options.attach, name)
		if chosen && !silent && wanted(r.options.attach, name) && !slices.Contains(r.options.noAttach, name) {
			services = append(services, name)
		}
	}
	slices.Sort(services)
	return services
}

// printLogs prints what the attachable services say since `up` began. Each
// line is told to lines, without waiting.
func (r *rollout) printLogs(ctx context.Context, lines chan<- struct{}) error {
	services := r.attachable()
	if len(services) == 0 {
		return nil
	}
	screen := r.out()
	screen.Colour = screen.Colour && !r.options.noColour
	stack := r.request.Stack.Name
	names := make([]string, 0, len(services))
	for _, s := range services {
		names = append(names, fmt.Sprintf("%s-%d", s, max(1, r.request.Stack.Services[s].Replicas)))
	}
	printer := cli.NewLogPrinter(screen, r.options.logStyle(), names...)
	query := api.LogQuery{Services: services, Follow: true, Since: r.began.Format(time.RFC3339Nano), Tail: -1}
	for e, err := range r.client.Logs(ctx, stack, query) {
		if err != nil {
			return err
		}
		if err := printer.Print(cli.LogName(stack, e.Name), e); err != nil {
			return err
		}
		select {
		case lines <- struct{}{}:
		default:
		}
	}
	return nil
}

// watch returns when no task of the stack runs or will run again, or when a
// flag says that the exit of one is enough. Each event makes it look; what it
// sees decides.
func (r *rollout) watch(ctx context.Context) attachEnd {
	stack := r.request.Stack.Name
	events := r.client.Events(ctx, api.EventQuery{Stack: stack, Follow: true, Since: r.began.Format(time.RFC3339Nano)})
	look := func() (attachEnd, bool) {
		status, err := r.client.Stack(ctx, stack)
		if api.HasCode(err, api.CodeNotFound) {
			return attachEnd{}, true // somebody else has removed it
		}
		if err != nil {
			return attachEnd{err: err}, true
		}
		return r.judge(status)
	}
	if end, over := look(); over {
		return end
	}
	for _, err := range events {
		if err != nil {
			return attachEnd{err: err}
		}
		if end, over := look(); over {
			return end
		}
	}
	return attachEnd{err: api.ErrCut}
}

// judge decides whether attached logs end with what the stack looks like.
func (r *rollout) judge(status api.StackStatus) (attachEnd, bool) {
	alive := false
	var last api.Task // of the exited ones that count, the first to exit
	for _, t := range status.Tasks {
		service, ours := r.request.Stack.Services[t.Service]
		if !ours || !t.Current || t.OneOff {
			continue
		}
		if t.State != api.TaskExited {
			alive = true
			continue
		}
		if service.OneShot && t.ExitCode == 0 && t.Service != r.options.exitCodeFrom {
			continue // others wait for its end: it is none of the stack's
		}
		counts := r.options.abortOnExit || r.options.abortOnFailure && t.ExitCode != 0
		if from := r.options.exitCodeFrom; from != "" && t.Service != from {
			counts = counts && t.ExitCode != 0 // the code comes from another one, a failure still ends all
		}
		if counts && (last.ID == "" || t.FinishedAt.Before(last.FinishedAt)) {
			last = t
		}
	}
	switch {
	case last.ID != "":
		return attachEnd{err: exit{code: r.abortCode(status, last)}, abort: alive, task: last}, true
	case !alive:
		return attachEnd{}, true
	}
	return attachEnd{}, false
}

// abortCode is what to exit with: the code of --exit-code-from's task if it
// has exited, else that of the task that ended it all.
func (r *rollout) abortCode(status api.StackStatus, last api.Task) int {
	for _, t := range status.Tasks {
		if t.Service == r.options.exitCodeFrom && t.Current && t.State == api.TaskExited {
			return t.ExitCode
		}
	}
	return last.ExitCode
}
