//go:build !unix

package testdeps

import (
	"errors"
	"os"
)

// Signals that other systems do not have: sending one fails.
var pause, resume os.Signal = os.Interrupt, os.Interrupt

func flock(*os.File) error { return errors.New("the servers of the tests need Unix") }
