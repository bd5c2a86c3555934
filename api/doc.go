// Package api is what the agent and its clients say to each other: request
// and response types, and the Go client.
//
// The agent serves HTTP on a unix socket (RUN/api.sock, 0660, the peer's uid
// checked). Bodies are JSON. Answers that take time are streams: one JSON
// object a line (application/x-ndjson), ended by the server; a failure after
// the first line is a line with "error". Interactive streams (exec, attach)
// are WebSockets.
//
//	GET    /v1/info                          Info
//	GET    /v1/stacks                        []StackSummary
//	GET    /v1/stacks/{stack}                StackStatus
//	POST   /v1/stacks/{stack}/plan           ApplyRequest -> Plan
//	POST   /v1/stacks/{stack}/apply          ApplyRequest -> stream of Progress
//	POST   /v1/stacks/{stack}/down           DownRequest -> stream of Progress
//	POST   /v1/stacks/{stack}/action         ActionRequest -> stream of Progress
//	POST   /v1/stacks/{stack}/run            RunRequest -> stream of Progress, with Task
//	GET    /v1/stacks/{stack}/rollout        Rollout
//	POST   /v1/stacks/{stack}/rollout        RolloutRequest -> stream of Progress
//	GET    /v1/stacks/{stack}/revisions      []Revision, newest first
//	POST   /v1/stacks/{stack}/rollback       RollbackRequest -> stream of Progress
//	POST   /v1/stacks/{stack}/scale          ScaleRequest -> stream of Progress
//	GET    /v1/stacks/{stack}/services/{service}/explain  Explanation
//	GET    /v1/stacks/{stack}/jobs           []Job
//	POST   /v1/stacks/{stack}/jobs/{job}/run  JobRunRequest -> stream of Progress
//	GET    /v1/stacks/{stack}/logs           LogQuery -> stream of LogEntry
//	GET    /v1/stacks/{stack}/stats          ?stream=BOOL&services= -> stream of TaskStats
//	GET    /v1/events                        EventQuery -> stream of Event
//	GET    /v1/tasks/{task}                  Task
//	GET    /v1/tasks/{task}/inspect          TaskInspect
//	GET    /v1/tasks/{task}/exec             WebSocket, ExecRequest as first message
//	GET    /v1/tasks/{task}/attach?start=BOOL  WebSocket
//	GET    /v1/tasks/{task}/wait             Task, once it has ended
//	GET    /v1/tasks/{task}/top              []Process
//	GET    /v1/tasks/{task}/path?path=&follow=BOOL     PathStat
//	DELETE /v1/tasks/{task}/path?path=&keep=BOOL
//	GET    /v1/tasks/{task}/archive?path=&follow=BOOL  tar
//	PUT    /v1/tasks/{task}/archive?path=&owner=BOOL&keep=BOOL  tar, unpacked there
//	GET    /v1/tasks/{task}/export           tar of its root file system
//	POST   /v1/tasks/{task}/commit           CommitRequest -> images.Image
//	GET    /v1/images                        []images.Image
//	GET    /v1/images/inspect?ref=           images.Image
//	POST   /v1/images/pull                   ImagePullRequest -> stream of Progress
//	POST   /v1/images/load                   tar -> stream of Progress
//	GET    /v1/images/save?ref=&ref=         tar (docker-archive)
//	GET    /v1/images/history?ref=           []ImageStep, the last first
//	POST   /v1/images/push                   ImagePushRequest -> stream of Progress
//	POST   /v1/images/tag                    ImageTagRequest
//	POST   /v1/images/digests                ImageDigestsRequest -> map of references at digests
//	POST   /v1/registries/login              LoginRequest
//	GET    /v1/system/df                     SystemUsage
//	DELETE /v1/images?ref=&force=BOOL        ImageRemoved
//	POST   /v1/images/prune?all=BOOL&until=&label=  ImageRemoved
//	POST   /v1/build                         tar (package build) -> stream of Progress
//	GET    /v1/build/ssh                     WebSocket, BuildSSH as first message
//	GET    /v1/volumes?stack=                []Volume
//	POST   /v1/volumes                       VolumeCreate -> Volume
//	DELETE /v1/volumes/{name}?force=BOOL
//	POST   /v1/volumes/prune?all=BOOL        Removed
//	GET    /v1/networks?stack=               []Network
//	POST   /v1/networks                      NetworkCreate -> Network
//	DELETE /v1/networks/{name}
//	POST   /v1/networks/prune                Removed
//	GET    /v1/contents/{kind}?stack=        []Content; kind: secret or config
//	POST   /v1/contents/{kind}               ContentSet -> Content
//	GET    /v1/contents/{kind}/{name}?stack= Content
//	DELETE /v1/contents/{kind}/{name}?stack=
//	POST   /v1/contents/{kind}/{name}/roll   ContentRoll -> stream of Progress
//	POST   /v1/contents/rekey
//	POST   /v1/contents/recipients           []ContentRecipient
//	POST   /v1/contents/export               ContentExport -> ContentArchive
//	POST   /v1/contents/import               ContentImport -> []Content
//	GET    /openapi.json, /openapi.yaml      this, machine-readable
//
// A failure is an Error (RFC 9457 problem, application/problem+json).
package api
