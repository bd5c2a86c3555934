package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	"berth/api"
)

// planFile is what `plan --out` writes and `up --plan` carries out: a request
// and what the agent said it would do. It holds the contents of configs and
// secrets.
type planFile struct {
	planHeader
	Created time.Time `json:"created"`
	// Services are those that were named on the command line.
	Services []string         `json:"services,omitempty"`
	Request  api.ApplyRequest `json:"request"`
	Plan     api.Plan         `json:"plan"`
}

// planHeader tells a plan of this version from everything else.
type planHeader struct {
	Format  string `json:"format"`  // planFormat
	Version int    `json:"version"` // planVersion
}

const (
	planFormat  = "berth plan"
	planVersion = 1
)

const planHint = "`berth plan --out FILE` writes one"

// writePlanFile writes a plan that only its user may read; the file is there
// whole or not at all.
func writePlanFile(path string, p planFile) error {
	p.planHeader, p.Created = planHeader{planFormat, planVersion}, time.Now()
	data, err := json.MarshalIndent(p, "", " ")
	if err != nil {
		return fmt.Errorf("encode the plan: %w", err)
	}
	if err := renameio.WriteFile(path, append(data, '\n'), 0o600, renameio.IgnoreUmask()); err != nil {
		return fmt.Errorf("write the plan to %s: %w", path, err)
	}
	return nil
}

// readPlanFile reads what writePlanFile wrote. Anything else is an error that
// says what is wrong with it.
func readPlanFile(path string) (p planFile, err error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return p, hinted{fmt.Errorf("there is no plan %s", path), planHint}
	}
	if err != nil {
		return p, fmt.Errorf("read the plan: %w", err)
	}
	broken := func(why string) error {
		return hinted{fmt.Errorf("%s %s", path, why), planHint}
	}
	var head planHeader
	switch err := json.Unmarshal(data, &head); {
	case err != nil && bytes.Contains(data, []byte(planFormat)):
		return p, broken("is damaged: " + err.Error())
	case err != nil, head.Format != planFormat:
		return p, broken("is not a plan that berth plan --out wrote")
	case head.Version > planVersion:
		return p, broken(fmt.Sprintf("is of a newer berth: its format has version %d, this berth reads %d", head.Version, planVersion))
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields() // what is not understood can't be carried out
	if err := dec.Decode(&p); err != nil {
		return p, broken("is not understood: " + err.Error())
	}
	if p.Request.Stack.Name == "" || p.Plan.Stack != p.Request.Stack.Name {
		return p, broken("is damaged: its request and its plan are of different stacks")
	}
	return p, nil
}

// planDecides are the flags of up that contradict --plan: what they say is in
// the plan already.
var planDecides = []string{
	"force-recreate", "no-recreate", "no-start", "remove-orphans", "renew-anon-volumes", "no-deps", "pull", "scale", "timeout", "expect-revision",
}

// checkPlanned refuses what contradicts --plan.
func (a *app) checkPlanned(cmd *cobra.Command, services []string) error {
	contradicts := func(what string) error {
		return hinted{fmt.Errorf("--plan and %s contradict each other", what), "a plan is carried out as it is: make another one with `berth plan --out`"}
	}
	for _, name := range planDecides {
		if cmd.Flags().Changed(name) {
			return contradicts("--" + name)
		}
	}
	g := a.global
	switch {
	case len(services) > 0:
		return contradicts("services")
	case len(g.files) > 0:
		return contradicts("--file")
	case g.project != "":
		return contradicts("--project-name")
	case g.projectDir != "":
		return contradicts("--project-directory")
	case len(g.profiles) > 0:
		return contradicts("--profile")
	case len(g.envFiles) > 0:
		return contradicts("--env-file")
	}
	return nil
}

// planned is the request of a plan file, which the agent refuses unless it
// would do exactly what the plan says.
func (p *planFile) planned() api.ApplyRequest {
	req := p.Request
	req.ExpectRevision, req.ExpectPlan = p.Plan.Revision, &p.Plan
	req.Actor = actor()
	return req
}
