//go:build linux

package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/minigate/minigate/bench/harness"
)

// row is one line of the table.
type row []string

// table has a row for each metric and a column for each server.
func (b *bench) table() []row {
	head := row{"scenario", "measured"}
	for _, s := range b.servers {
		head = append(head, s.name)
	}
	rows := []row{head}
	for _, s := range b.scenarios {
		for i, m := range s.metrics {
			r := row{"", m.what}
			if i == 0 {
				r[0] = s.title()
			}
			ours := b.values(s, b.servers[0], m)
			for j, of := range b.servers {
				values := b.values(s, of, m)
				if len(values) == 0 {
					r = append(r, "–")
					continue
				}
				cell := m.show(harness.Median(slices.Collect(maps.Values(values))))
				if times := m.better(ours, values); j > 0 && times > 0 {
					cell += " (" + multiple(times) + ")"
				}
				r = append(r, cell+b.mark(s, of))
			}
			rows = append(rows, r)
		}
	}
	return rows
}

// dagger marks figures of servers that did not do all they were asked for.
const dagger = " †"

func (b *bench) mark(s scenario, of server) string {
	for _, t := range b.results[s.name+" "+of.name] {
		if t.lost() {
			return dagger
		}
	}
	return ""
}

// values are those of all rounds or turns, by their numbers; none for a server
// that did not take what the scenario is about.
func (b *bench) values(s scenario, of server, m metric) map[int]float64 {
	values := make(map[int]float64)
	for _, t := range b.results[s.name+" "+of.name] {
		if s.deflate && !s.compressed(t) {
			return nil
		}
		values[t.number] = m.value(t)
	}
	return values
}

// better is how many times better ours were, in the median of the rounds or turns:
// the machine may go at another pace in each of them. 0 says that nothing can be
// compared.
func (m metric) better(ours, theirs map[int]float64) float64 {
	var times []float64
	for number, v := range theirs {
		a, b := v, ours[number]
		if m.more {
			a, b = b, a
		}
		if a > 0 && b > 0 {
			times = append(times, a/b)
		}
	}
	return harness.Median(times)
}

func multiple(times float64) string {
	if times >= 100 {
		return fmt.Sprintf("%.0f×", times)
	}
	return fmt.Sprintf("%.3g×", times)
}

// unit is what the trials of a scenario are.
func (s scenario) unit() string {
	if s.turns > 0 {
		return "turn"
	}
	return "round"
}

// title says what a scenario does.
func (s scenario) title() string {
	n := thousands(s.n)
	switch s.mode {
	case "idle":
		return n + " idle sockets"
	case "handshake":
		return n + " connects"
	case "rate":
		return fmt.Sprintf("%g × %d B a second to %s", s.rate, s.size, n)
	case "command":
		return n + " sockets send commands"
	case "unicast":
		return "8 publishers to one user each of " + n
	case "stall":
		return fmt.Sprintf("%d × %s B to %s, %s of them stalled", s.count, thousands(s.size), n, thousands(s.stalled))
	}
	title := fmt.Sprintf("%d × %s B to %s", s.count, thousands(s.size), n)
	if s.deflate {
		title += ", deflated"
	}
	return title
}

func thousands(n int) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%s,%03d", thousands(n/1000), n%1000)
}

// versions are those of what minigate is compared with.
func (b *bench) versions() (list []string) {
	for _, s := range b.servers[1:] {
		switch s.name {
		case "centrifugo":
			list = append(list, harness.ModuleVersion(b.programs["centrifugo"], centrifugo))
		case "centrifuge":
			list = append(list, harness.ModuleVersion(b.programs["centrifuge"], "github.com/centrifugal/centrifuge"))
		case "gws":
			list = append(list, harness.ModuleVersion(b.programs["gws"], "github.com/lxzan/gws"))
		case "nchan":
			list = append(list, harness.NchanVersions()...)
		}
	}
	return list
}

func (b *bench) print(out io.Writer) error {
	rows := b.table()
	if err := b.printRows(out, rows); err != nil {
		return err
	}
	for _, r := range rows {
		if slices.ContainsFunc(r, func(cell string) bool { return strings.HasSuffix(cell, dagger) }) {
			_, err := io.WriteString(out, "\n† Connections were lost, or not every message arrived.\n")
			return err
		}
	}
	return nil
}

func (b *bench) printRows(out io.Writer, rows []row) error {
	if b.markdown {
		var text strings.Builder
		for i, r := range rows {
			text.WriteString("| " + strings.Join(r, " | ") + " |\n")
			if i == 0 {
				text.WriteString("|---|---|" + strings.Repeat("---:|", len(r)-2) + "\n")
			}
		}
		_, err := io.WriteString(out, text.String())
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	for _, r := range rows {
		_, _ = fmt.Fprintln(w, strings.Join(r, "\t")) // Flush tells
	}
	return w.Flush()
}
