package secrets

// Config places the store.
type Config struct {
	Root string // identity (0400), ciphertext (0600)
	Run  string // one tmpfs per task
}

// File is one config or secret as it is delivered.
type File struct {
	Digest string // as returned by Put
	Name   string // file name below the delivery folder, unique in it
	UID    int
	GID    int
	Mode   uint32
}
