// Package logfile is the log of one instance on disk: numbered segments in a
// folder, written by one log warden and read by the agent.
//
// A segment is NNNNNNNN.log, mode 0600, at most [SegmentSize] bytes; a full one
// is followed by the next number and only the newest [Segments] stay. Nothing is
// ever renamed, so a reader knows by number where it is. A record is one line:
//
//	2026-11-24T05:41:43.123456789Z stdout F text of the line
//
// with the stream stdout, stderr or note (the writer's own remark, such as how
// much a full disk cost), and F for the end of a line or P for a part of one
// longer than [MaxText].
//
//	r, err := logfile.Open(dir, logfile.Options{Tail: 100, Follow: true})
//	entry, err := r.Next(ctx)
//
// Neighbours: isolation/warden/tasklog feeds the writer.
package logfile
