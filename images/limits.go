package images

import "time"

// limits bound what a registry or an archive can make us do. They are far
// above real images and far below what hurts.
type limits struct {
	manifest int64 // bytes
	config   int64 // bytes
	layers   int   // of one image
	depth    int   // of indexes in indexes
	unpacked int64 // bytes of one layer, as an archive
	ratio    int64 // of unpacked to compressed, past ratioFrom
	entries  int   // of one layer
	names    int64 // bytes of the names of directories of one layer

	tries     int           // of a request without progress
	backoff   time.Duration // before the second try, doubling
	backoffTo time.Duration // longest wait, also for Retry-After
	idle      time.Duration // without minRate bytes
	minRate   int64         // bytes per idle
}

const ratioFrom = 1 << 30

var defaultLimits = limits{
	manifest: 4 << 20,
	config:   8 << 20,
	layers:   512,
	depth:    2,
	unpacked: 64 << 30, // images for machine learning pass 20 GiB
	ratio:    2000,     // gzip can't pass 1032
	entries:  2 << 20,
	names:    64 << 20,

	tries:     5,
	backoff:   500 * time.Millisecond,
	backoffTo: 60 * time.Second,
	idle:      30 * time.Second,
	minRate:   4 << 10,
}
