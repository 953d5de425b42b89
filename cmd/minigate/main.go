// Command minigate stands between a WeChat mini-program and its owner's
// backend and carries all its network traffic. `minigate help` lists what it
// can do.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal asks for a graceful end; from then on the second one
	// finds the default handler and ends the process at once.
	context.AfterFunc(ctx, stop)
	collectRarely()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}
