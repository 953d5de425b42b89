package cgroup

import (
	"testing"
	"testing/fstest"
)

func tree(files map[string]string) fstest.MapFS {
	m := fstest.MapFS{}
	for name, text := range files {
		m[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return m
}

func TestFind(t *testing.T) {
	for name, tt := range map[string]struct {
		files map[string]string
		limit int64 // 0: none
		used  int64
	}{
		"a container": {map[string]string{
			"proc/self/cgroup":             "0::/\n",
			"sys/fs/cgroup/memory.max":     "1073741824\n",
			"sys/fs/cgroup/memory.current": "900\n",
			"sys/fs/cgroup/memory.stat":    "anon 5\nfile 300\ninactive_file 200\n",
		}, 1 << 30, 700},
		"a unit within a tighter slice": {map[string]string{
			"proc/self/cgroup":                               "0::/a.slice/b.service\n",
			"sys/fs/cgroup/a.slice/b.service/memory.max":     "5000\n",
			"sys/fs/cgroup/a.slice/b.service/memory.current": "1\n",
			"sys/fs/cgroup/a.slice/memory.max":               "4000\n",
			"sys/fs/cgroup/a.slice/memory.current":           "77\n",
			"sys/fs/cgroup/a.slice/memory.stat":              "anon 5\n",
		}, 4000, 77},
		"no limit": {map[string]string{
			"proc/self/cgroup":             "0::/x\n",
			"sys/fs/cgroup/x/memory.max":   "max\n",
			"sys/fs/cgroup/cgroup.procs":   "",
			"sys/fs/cgroup/x/memory.stat":  "",
			"sys/fs/cgroup/memory.current": "5",
		}, 0, 0},
		"the first version": {map[string]string{
			"proc/self/cgroup": "12:cpu,cpuacct:/docker/1\n5:memory:/docker/1\n1:name=systemd:/docker/1\n",
			"sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes": "2000\n",
			"sys/fs/cgroup/memory/docker/1/memory.usage_in_bytes": "1500\n",
			"sys/fs/cgroup/memory/docker/1/memory.stat":           "inactive_file 1\ntotal_inactive_file 500\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes":          "9223372036854771712\n",
		}, 2000, 1000},
		"the first version in a container, whose path is the host's": {map[string]string{
			"proc/self/cgroup":                           "5:memory:/kubepods/pod1/2\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "2000\n",
			"sys/fs/cgroup/memory/memory.usage_in_bytes": "300\n",
			"sys/fs/cgroup/memory/memory.stat":           "total_inactive_file 500\n",
		}, 2000, 0},
		"the first version without a limit": {map[string]string{
			"proc/self/cgroup":                           "5:memory:/\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
		}, 0, 0},
		"nonsense": {map[string]string{"proc/self/cgroup": "0\n::\n0::/../..\n", "sys/fs/cgroup/memory.max": "many"}, 0, 0},
		"nothing":  {nil, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			g, ok := find(tree(tt.files))
			if ok != (tt.limit != 0) || g.Limit != tt.limit {
				t.Fatalf("limit %d, %v, want %d", g.Limit, ok, tt.limit)
			}
			if !ok {
				return
			}
			if used, err := g.Used(); err != nil || used != tt.used {
				t.Errorf("used %d, %v, want %d", used, err, tt.used)
			}
		})
	}
}

func TestUsedFails(t *testing.T) {
	files := map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "1000"}
	for _, more := range []map[string]string{
		{},
		{"sys/fs/cgroup/memory.current": "5"},
		{"sys/fs/cgroup/memory.current": "5", "sys/fs/cgroup/memory.stat": "inactive_file x"},
	} {
		m := tree(files)
		for name, f := range tree(more) {
			m[name] = f
		}
		g, ok := find(m)
		if !ok {
			t.Fatal("no limit")
		}
		if used, err := g.Used(); err == nil {
			t.Errorf("%v: used %d", more, used)
		}
	}
}

// On this machine, whatever it is.
func TestMemory(t *testing.T) {
	g, ok := Memory()
	if !ok {
		return // no limit is an answer
	}
	if used, err := g.Used(); err != nil || used <= 0 || used > 2*g.Limit {
		t.Errorf("%d of %d bytes, %v", used, g.Limit, err)
	}
}
