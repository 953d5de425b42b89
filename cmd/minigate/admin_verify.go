package main

import (
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"time"
)

// difference is one between the list of files and the storage.
type difference struct {
	Problem  string    `json:"problem"`
	File     string    `json:"file,omitempty"`
	Key      string    `json:"key"`
	Size     int64     `json:"size"`
	Stored   int64     `json:"stored"`
	Modified time.Time `json:"modified,omitzero"`
}

// problems say what a difference is.
var problems = map[string]string{
	"bytes_missing":  "the storage has no bytes of this file",
	"size_differs":   "the storage has another number of bytes",
	"parts_left":     "these parts belong to a file that is whole",
	"record_missing": "these bytes belong to a file that is not known",
	"unknown_object": "this is nothing that minigate stores",
}

// verifyFiles compares the list of files with the storage, page by page. What
// differs is printed as it is found, and is an error at the end.
func verifyFiles(ctx context.Context, c adminCall, flags *flag.FlagSet, args []string, stdout io.Writer) error {
	if err := c.parse(flags, args); err != nil {
		return err
	}
	found, checked := 0, map[string]int{}
	for _, side := range []string{"files", "storage"} {
		for cursor := ""; ; {
			body, err := json.Marshal(map[string]any{"side": side, "limit": 200, "cursor": cursor})
			if err != nil {
				return err
			}
			answer, err := c.ask(ctx, "POST", "/api/files/verify", body)
			if err != nil {
				return err
			}
			var page struct {
				Checked     int
				Differences []difference
				Cursor      string
			}
			if err := json.Unmarshal(answer, &page); err != nil {
				return fmt.Errorf("%s: not the answer of a minigate", *c.ops)
			}
			for _, d := range page.Differences {
				if err := d.print(stdout, *c.asJSON); err != nil {
					return err
				}
			}
			found += len(page.Differences)
			checked[side] += page.Checked
			if cursor = page.Cursor; cursor == "" {
				break
			}
		}
	}
	if !*c.asJSON {
		say(stdout, "%d files and %d objects compared\n", checked["files"], checked["storage"])
	}
	if found > 0 {
		return fmt.Errorf("%d differences between the list of files and the storage", found)
	}
	return nil
}

// print shows a difference on a line of its own.
func (d difference) print(stdout io.Writer, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(stdout).Encode(d)
	}
	_, err := fmt.Fprintf(stdout, "%s\t%s\t%q: %s (%d bytes listed, %d stored)\n",
		plain(d.Problem), plain(cmp.Or(d.File, "-")), d.Key, cmp.Or(problems[d.Problem], "unknown to this version"), d.Size, d.Stored)
	return err
}
