// Package volume keeps named volumes: folders that outlive the containers that
// use them.
//
// A volume is ROOT/NAME/data, with ROOT/NAME/volume.json beside it. It is made
// once; making it again returns what is there. The first container that mounts
// an empty volume seeds it with what its image has at that path, as Compose
// users expect; ROOT/NAME/seeding is there while that goes on, so that a copy
// cut off by a crash is begun anew instead of taken for the application's data.
//
// A volume with the options of Docker's local driver (type, o, device) is a
// mount on its data folder, made by Prepare.
package volume
