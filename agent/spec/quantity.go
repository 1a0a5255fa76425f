package spec

import "time"

// Bytes is a size: "128GiB", "16MiB", "1024". Whole bytes, never negative.
type Bytes int64

// CPU is a share of processors in thousandths of a core: "16", "0.5".
type CPU int64

// BitRate is bits per second: "1Gbit", "200Mbit".
type BitRate int64

// Duration is a time.Duration written "30s".
type Duration time.Duration
