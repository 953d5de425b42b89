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

// List implements Store. Its places are xx/NAME, and parts/NAME/ID behind them.
// What is in the folder and is
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
	return f.listUploads(ctx, objects, next, after, limit)
}

// listUploads adds uploads in parts to objects, whose last is at next.
func (f *Folder) listUploads(ctx context.Context, objects []Object, next, after string, limit int) ([]Object, string, error) {
	names, err := os.ReadDir(filepath.Join(f.dir, "parts"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, "", folderFault(err)
	}
	for _, name := range names {
		ids, err := os.ReadDir(filepath.Join(f.dir, "parts", name.Name()))
		if err == nil {
			err = ctx.Err()
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, "", folderFault(err)
		}
		for _, id := range ids {
			place := "parts/" + name.Name() + "/" + id.Name()
			if place <= after {
				continue
			}
			if len(objects) == limit {
				return objects, next, nil
			}
			o, err := f.uploadAt(place, name.Name(), id)
			if errors.Is(err, errNoUpload) { // completed or aborted meanwhile
				continue
			}
			if err != nil {
				return nil, "", err
			}
			objects, next = append(objects, o), place
		}
	}
	return objects, "", nil
}

// uploadAt is an upload in parts, or what is in its place.
func (f *Folder) uploadAt(place, name string, id fs.DirEntry) (Object, error) {
	info, err := id.Info()
	if err != nil {
		return Object{}, uploadFault(err)
	}
	o := Object{Key: place, Size: info.Size(), Modified: info.ModTime()}
	key, err := nameEncoding.DecodeString(name)
	if _, ok := partSizeIn(id.Name()); err != nil || !info.IsDir() || !ok {
		return o, nil
	}
	o.Key, o.Upload, o.Size = string(key), id.Name(), 0
	if index, err := os.Stat(f.upload(o.Key, o.Upload).index()); err == nil && index.ModTime().After(o.Modified) {
		o.Modified = index.ModTime()
	}
	parts, err := f.Parts(context.Background(), o.Key, o.Upload) // nothing waits in it
	for _, p := range parts {
		o.Size += p.Size
	}
	return o, err
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
