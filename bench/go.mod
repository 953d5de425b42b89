// Comparisons of minigate with other programs, a folder for each, and the load
// generator that they share. They start real programs and are a module of their
// own, so that minigate itself needs nothing of what they need.
module github.com/minigate/minigate/bench

go 1.26.0

require golang.org/x/sys v0.49.0
