package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"berth/api"
	"berth/cli"
	"berth/spec"
)

func newAdopt(a *app) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "adopt PROJECT",
		Short: "Take over a stack that runs under Docker Compose",
		Long: `Take a Compose project of this machine's Docker over. Its files are found
by the labels of its containers (-f names others). One service after the
other, dependencies first: the image is copied from Docker unless it is
here; the containers are stopped; the service is started under Berth and
must become ready. If it does not, it is taken away again, Docker's
containers are started, and adopt ends; what was taken over before stays.

Volumes keep their names and stay where they are: Berth mounts Docker's
folder. Neither down --volumes nor volume rm deletes what is in it.
Docker's containers stay, stopped, for docker start or docker rm. While
it lasts, services on one side can't reach those on the other by name.

With --dry-run it only shows what it would do.` + exitStatus(),
		Example: `  berth --dry-run adopt shop
  berth adopt shop`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.adopt(cmd.Context(), args[0], yes) },
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

func (a *app) adopt(ctx context.Context, project string, yes bool) error {
	docker, err := cli.NewDocker(os.Getenv("DOCKER_HOST"))
	if err != nil {
		return err
	}
	containers, err := docker.Containers(ctx, project)
	if err != nil {
		return err
	}
	if len(containers) == 0 {
		return hinted{fmt.Errorf("no container of a Compose project %s in Docker", project), "`docker compose ls -a` lists the projects"}
	}
	if err := a.origin(project, cli.OriginOf(containers)); err != nil {
		return err
	}
	result, err := a.load(ctx, nil, false)
	if err != nil {
		return err
	}
	volumes, err := docker.Volumes(ctx)
	if err != nil {
		return err
	}
	plan := cli.PlanAdoption(result.Stack, containers, volumes)
	if err := plan.Write(a.stdout); err != nil {
		return err
	}
	switch {
	case len(plan.Services) == 0:
		return errors.New("no container of the project is of a service that the file has")
	case a.global.dryRun:
		return nil
	case !a.agreed(yes, "Take "+project+" over?"):
		return errors.New("nothing was done")
	}
	client, err := a.agent(ctx)
	if err != nil {
		return err
	}
	t := &takeover{app: a, docker: docker, client: client, plan: plan}
	return t.run(ctx)
}

// origin loads the files that the labels name, unless flags name others.
func (a *app) origin(project string, o cli.Origin) error {
	a.global.project = project
	if len(a.global.files) > 0 {
		return nil
	}
	if len(o.Files) == 0 {
		return hinted{fmt.Errorf("the containers of %s do not say which files they came from", project), "name them with -f"}
	}
	for _, file := range o.Files {
		if _, err := os.Stat(file); err != nil {
			return hinted{fmt.Errorf("the file that %s came from: %w", project, err), "name the files with -f"}
		}
	}
	a.global.files = o.Files
	if a.global.projectDir == "" {
		a.global.projectDir = o.Dir
	}
	if len(a.global.envFiles) == 0 {
		a.global.envFiles = o.EnvFiles
	}
	return nil
}

// takeover is an adoption under way.
type takeover struct {
	*app
	docker *cli.Docker
	client *api.Client
	plan   cli.Adoption
}

func (t *takeover) run(ctx context.Context) error {
	for i, s := range t.plan.Services {
		if err := t.image(ctx, s); err != nil {
			return t.ended(i, err)
		}
		made, err := t.volumes(ctx, s)
		var stopped []string
		if err == nil {
			stopped, err = t.stop(ctx, s)
		}
		if err == nil {
			err = t.start(ctx, i)
		}
		if err != nil {
			// Also after Ctrl-C: nobody is to be left without the service.
			return t.ended(i, errors.Join(err, t.undo(context.WithoutCancel(ctx), i, stopped, made)))
		}
		for _, c := range s.Containers {
			if err := t.docker.Rest(ctx, c.ID); err != nil {
				fmt.Fprintf(t.stderr, "warning: Docker may start %.12s again at its next start: %s\n", c.ID, cli.Escape(err.Error()))
			}
		}
		fmt.Fprintf(t.stdout, "%s: taken over\n", cli.Escape(s.Name))
	}
	fmt.Fprintf(t.stderr, "hint: Docker's containers are stopped; `docker compose -p %s rm` removes them (without -v: the volumes are in use)\n", t.plan.Stack)
	return nil
}

// ended says how far it came.
func (t *takeover) ended(i int, err error) error {
	hint := "nothing was taken over; Docker's containers run"
	if i > 0 {
		hint = fmt.Sprintf("%d of %d services are taken over; the others run under Docker; adopt again goes on", i, len(t.plan.Services))
	}
	return exit{exitError, hinted{fmt.Errorf("%s: %w", t.plan.Services[i].Name, err), hint}}
}

// image copies the service's image from Docker, unless it is here.
func (t *takeover) image(ctx context.Context, s cli.AdoptedService) error {
	if len(s.Containers) == 0 {
		return nil // up pulls it
	}
	if _, err := t.client.InspectImage(ctx, s.Image); err == nil {
		return nil
	}
	archive, err := t.docker.Save(ctx, s.Image)
	if err != nil {
		return err
	}
	defer archive.Close()
	return t.carry(t.client.LoadImages(ctx, archive))
}

// volumes makes Berth's volumes of Docker's folders, and names the new ones.
func (t *takeover) volumes(ctx context.Context, s cli.AdoptedService) (made []string, err error) {
	for _, v := range s.Volumes {
		_, err := t.client.CreateVolume(ctx, api.VolumeCreate{Name: v.Name, Adopt: v.Mountpoint})
		if err != nil {
			return made, err
		}
		made = append(made, v.Name)
	}
	return made, nil
}

// stop stops Docker's containers of a service, and gives those that ran.
func (t *takeover) stop(ctx context.Context, s cli.AdoptedService) (stopped []string, err error) {
	for _, c := range s.Containers {
		if c.State != "running" && c.State != "restarting" && c.State != "paused" {
			continue
		}
		stopped = append(stopped, c.ID)
		if err := t.docker.Stop(ctx, c.ID); err != nil {
			return stopped, err
		}
	}
	return stopped, nil
}

// stack is the stack with the first n services.
func (t *takeover) stack(ctx context.Context, n int) (*spec.Stack, error) {
	names := make([]string, 0, n)
	for _, s := range t.plan.Services[:n] {
		names = append(names, s.Name)
	}
	o, err := t.options()
	if err != nil {
		return nil, err
	}
	o.Services, o.NoDeps, o.Inspect = names, true, false
	result, err := t.read(ctx, o)
	if err != nil {
		return nil, err
	}
	if err := result.Diagnostics.Err(); err != nil {
		return nil, err
	}
	for _, s := range t.plan.Services[:n] {
		service := result.Stack.Services[s.Name]
		if service.Build != nil && len(s.Containers) > 0 {
			service.Image, service.Build = s.Image, nil // what ran, not what the sources make now
			result.Stack.Services[s.Name] = service
		}
	}
	return result.Stack, nil
}

// start brings service i up and waits until it is ready.
func (t *takeover) start(ctx context.Context, i int) error {
	stack, err := t.stack(ctx, i+1)
	if err != nil {
		return err
	}
	req := api.ApplyRequest{Stack: *stack, Services: []string{t.plan.Services[i].Name}, Wait: true, Actor: actor()}
	if req.Auth, err = t.stackCredentials(ctx, stack); err != nil {
		return err
	}
	return t.carry(t.client.Apply(ctx, req))
}

// undo takes service i away from Berth again and starts what it replaced.
func (t *takeover) undo(ctx context.Context, i int, stopped, made []string) error {
	var errs []error
	if i == 0 {
		err := t.carry(t.client.Down(ctx, t.plan.Stack, api.DownRequest{}))
		if !api.HasCode(err, api.CodeNotFound) {
			errs = append(errs, err)
		}
	} else if stack, err := t.stack(ctx, i); err != nil {
		errs = append(errs, err)
	} else {
		errs = append(errs, t.carry(t.client.Apply(ctx, api.ApplyRequest{Stack: *stack, RemoveOrphans: true, Wait: true, Actor: actor()})))
	}
	for _, name := range made {
		errs = append(errs, t.client.RemoveVolume(ctx, name, true))
	}
	for _, id := range stopped {
		errs = append(errs, t.docker.Start(ctx, id))
	}
	return errors.Join(errs...)
}
