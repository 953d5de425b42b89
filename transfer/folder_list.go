package transfer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// List implements Store. Its places are xx/NAME. What is in the folder and is
// not an object of ours is listed under that, which is no key of ours either.
func (f *Folder) List(ctx context.Context, after string, limit int) (objects []Object, next string, err error) {
	for i := range 256 {
		shard := fmt.Sprintf("%02x", i)
		if len(after) > len(shard) && shard < after[:len(shard)] {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, "", err
		}
		entries, err := os.ReadDir(filepath.Join(f.dir, shard)) // sorted
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, "", folderFault(err)
		}
		for _, e := range entries {
			place := shard + "/" + e.Name()
			if place <= after {
				continue
			}
			if len(objects) == limit {
				return objects, next, nil
			}
			o, err := objectOf(place, e)
			if errors.Is(err, fs.ErrNotExist) { // deleted meanwhile
				continue
			}
			if err != nil {
				return nil, "", folderFault(err)
			}
			objects, next = append(objects, o), place
		}
	}
	return objects, "", nil
}

func objectOf(place string, e fs.DirEntry) (Object, error) {
	info, err := e.Info()
	if err != nil {
		return Object{}, err
	}
	o := Object{Key: place, Size: info.Size(), Modified: info.ModTime()}
	shard, name, _ := strings.Cut(place, "/")
	if key, err := nameEncoding.DecodeString(name); err == nil && info.Mode().IsRegular() && shardOf(string(key)) == shard {
		o.Key = string(key)
	}
	return o, nil
}

// Address implements Store: a folder has none.
func (f *Folder) Address(context.Context, string, Presented) (string, error) { return "", nil }
