package reconcile

import "errors"

// unseen is the error of a look at the operating system. What it was to show may
// be there or not: it is not known.
type unseen struct{ error }

// Unwrap gives the look's own error to fault and errors.
func (u unseen) Unwrap() error { return u.error }

func isUnseen(err error) bool {
	_, is := errors.AsType[unseen](err)
	return is
}

// seen passes on what a look showed and marks its error.
func seen[T any](have T, err error) (T, error) {
	if err != nil {
		err = unseen{err}
	}
	return have, err
}
