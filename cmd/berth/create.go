package main

import (
	"github.com/spf13/cobra"
)

func newCreate(a *app) *cobra.Command {
	var o upOptions
	cmd := &cobra.Command{
		Use:   "create [SERVICE...]",
		Short: "Make the Compose file the wanted state, but start nothing",
		Long: `Pull images, make networks and record what the Compose file asks for,
without starting new services: berth start does. The same as
berth up --no-start. Containers are made when they are started.` + exitStatus(),
		ValidArgsFunction: a.completeServices,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.noStart = true
			if err := o.check(); err != nil {
				return err
			}
			return a.up(cmd.Context(), o, args)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.forceRecreate, "force-recreate", false, "replace tasks that have not changed, too")
	f.BoolVar(&o.noRecreate, "no-recreate", false, "leave existing tasks alone, even if they changed")
	addBuildFlags(f, &o.build, &o.noBuild)
	f.BoolVar(&o.removeOrphans, "remove-orphans", false, "remove services that the file no longer has")
	f.BoolVar(&o.quietPull, "quiet-pull", false, "show no progress of pulls")
	f.StringVar(&o.pull, "pull", "", "pull images, `WHEN`: always, missing, never (default: as the file says)")
	f.StringArrayVar(&o.scale, "scale", nil, "`SERVICE=NUM`: run NUM tasks of the service")
	return cmd
}
