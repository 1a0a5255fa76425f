package api

import (
	"context"
	"net/http"
	"reflect"
	"time"
)

// ServeAs answers a request as if the kernel had named the caller.
func (s *Server) ServeAs(who Caller, w http.ResponseWriter, r *http.Request) {
	s.mux.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, who)))
}

// Types gives a route's types; nil where it has none.
func (r Route) Types() (in, out reflect.Type) { return r.in, r.out }

// Streams says whether a route has no time limit.
func (r Route) Streams() bool { return r.stream }

// NewLimiter and its methods.
func NewLimiter(now func() time.Time) *limiter { return newLimiter(now) }

func (l *limiter) Enter(uid uint32) bool { return l.enter(uid) }

func (l *limiter) Leave(uid uint32) { l.leave(uid) }

func (l *limiter) Take(uid uint32, size int64) bool { return l.take(uid, size) }

func (l *limiter) Give(uid uint32, size int64) { l.give(uid, size) }

// CallerOf gives a peer its role.
func (p Peers) CallerOf(uid uint32, groups ...uint32) Caller {
	return p.caller(peer{uid: uid, groups: groups})
}

// NameFrom makes an instance's name of an image.
func NameFrom(image string) string { return nameFrom(image) }

// Limits of one caller.
const (
	RateOthers     = rateOthers
	MaxConnections = maxConnections
)
