package status

import "sync"

// marks remembers, by node and part, the number of the latest entry that is
// known to be in the store. A store that has a smaller one has lost something.
// Nodes are few: those of this process, or of a test.
type marks struct {
	mu sync.Mutex
	m  map[string]*[Partitions]int64
}

func (m *marks) of(node string) [Partitions]int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := m.m[node]; n != nil {
		return *n
	}
	return [Partitions]int64{}
}

func (m *marks) set(node string, part int, number int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.m == nil {
		m.m = make(map[string]*[Partitions]int64)
	}
	if m.m[node] == nil {
		m.m[node] = new([Partitions]int64)
	}
	m.m[node][part] = number
}

func (m *marks) forget(node string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.m, node)
}
