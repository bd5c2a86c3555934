package e2e_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"
)

// lasting are calls whose effect outlives the agent, by receiver and name.
var lasting = map[string]bool{
	"w.commit": true, "s.commit": true, "db.Update": true, "os.Rename": true, "renameio.WriteFile": true,
	"unix.Mount": true, "unix.MoveMount": true, "nl.LinkAdd": true, "nl.LinkDel": true,
}

// pointless are the functions that make such a call and have no crash point,
// and why.
var pointless = map[string]string{
	"agent/apply.go commitRevision":          "apply.commit, apply.committed are around it",
	"agent/world.go commit":                  "its callers have the points",
	"agent/world.go forgetStack":             "stack.forget, stack.forgotten are around it",
	"agent/network.go disown":                "the only step of its action",
	"agent/resource_routes.go createNetwork": "network.ensured follows; no rollout makes networks by hand",
	"agent/subpath.go mountAside":            "task.furnished follows",
	"agent/shares.go sharedMemory":           "task.furnished follows",
	"agent/jobs.go note":                     "job.run is before it",
	"agent/placement.go nodeIdentity":        "the first start of all",
	"agent/recover.go sweepSecrets":          "collects, at every start and every end of a rollout",
	"agent/ship.go write":                    "a position: what is shipped twice is not lost",
	"agent/synced.go changeRemoved":          "what watch had synced is synced again",
	"runtime/oci_runtime.go save":            "a cache",
	"runtime/seccomp.go learn":               "a cache",
	"runtime/rotate.go shift":                "log.shifted follows",
	"runtime/task.go saveRecord":             "conmon.reported, container.created are around it",
	"runtime/volume/store.go Create":         "volume.made follows",
	"images/collect.go sweep":                "image.recorded is in commit",
	"images/store.go Tag":                    "image.recorded is in commit",
	"images/mount.go bind":                   "rootfs.mounted follows",
	"images/mount.go overlayByParts":         "rootfs.mounted follows",
	"images/mount.go overlayByOptions":       "rootfs.mounted follows",
	"images/records.go openRecords":          "makes what is missing, at every start",
	"overlaynet/attach.go addVeth":           "veth.made follows",
	"overlaynet/bridge.go Remove":            "network.unruled, network.unmade are around it",
	"overlaynet/unplug.go deleteTogether":    "veth.deleted follows",
	"overlaynet/sysctl.go keepClosed":        "written anew at every change",
	"secrets/deliver.go mountTmpfs":          "secrets.mounted follows",
	"secrets/files.go replaceFile":           "content.stored, rekey.begun, rekey.content, rekey.written are around its callers",
	"secrets/rewrite.go remountTmpfs":        "secrets.rewritten follows",
	"store/bolt.go prepare":                  "makes what is missing, at every start",
	"store/bolt.go Update":                   "its callers have the points",
}

// TestCrash_WhatLasts_HasAPoint: who adds a step that outlives the agent names
// the moment before or after it, or says why not.
func TestCrash_WhatLasts_HasAPoint(t *testing.T) {
	found := map[string]bool{}
	for _, dir := range []string{"agent", "runtime", "runtime/volume", "images", "overlaynet", "secrets", "dataplane", "store"} {
		files, err := filepath.Glob(filepath.Join("..", dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range files {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range file.Decls {
				f, ok := d.(*ast.FuncDecl)
				if !ok {
					continue
				}
				last, point := calls(f)
				if last == "" || point {
					continue
				}
				name := strings.TrimPrefix(path, "../") + " " + f.Name.Name
				if found[name] = true; pointless[name] == "" {
					t.Errorf("%s calls %s: add crash.At, and the point to a round, or say here why not", name, last)
				}
			}
		}
	}
	for name := range pointless {
		if !found[name] {
			t.Errorf("%s has a point, or nothing that lasts", name)
		}
	}
}

// calls says what of f lasts, "" if nothing does, and whether f has a point.
func calls(f *ast.FuncDecl) (last string, point bool) {
	ast.Inspect(f, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		sel, ok := call.Fun.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		on := ""
		switch x := sel.X.(type) {
		case *ast.Ident:
			on = x.Name
		case *ast.SelectorExpr:
			on = x.Sel.Name
		}
		name := on + "." + sel.Sel.Name
		point = point || name == "crash.At"
		if lasting[name] {
			last = name
		}
		return true
	})
	return last, point
}
