package api

// Statuses of a Finding.
const (
	FindingOK      = "ok"
	FindingWarning = "warning" // works, but worse than it could
	FindingBroken  = "broken"  // something that Berth needs is missing
)

// Finding is one thing that `berthd doctor` looked at. `berthd doctor
// --format json` prints an array of them and exits 0 whatever it found;
// `berth doctor` shows it.
type Finding struct {
	Check  string `json:"check"` // "runtime", "nftables" …
	Status string `json:"status"`
	Detail string `json:"detail"`         // what was found, with versions and paths
	Hint   string `json:"hint,omitempty"` // what to do
}
