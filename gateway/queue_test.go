package gateway

import "testing"

// Items come out in their order, and one that comes alone takes no memory.
func TestQueue(t *testing.T) {
	q := newQueue[int]()
	pushed, popped := 0, 0
	push := func(n int) {
		for range n {
			q.push(pushed)
			pushed++
		}
	}
	pop := func(n int) {
		t.Helper()
		for range n {
			if item, ok := q.pop(); item != popped || !ok {
				t.Fatalf("%d, %v instead of %d", item, ok, popped)
			}
			popped++
		}
	}
	if n := testing.AllocsPerRun(100, func() { push(1); pop(1) }); n != 0 {
		t.Errorf("one alone takes %v allocations", n)
	}
	for _, n := range []int{1, 3, cap(q.room), 10 * cap(q.room)} {
		push(n)
		pop(n - 1)
		push(n)
		pop(n + 1)
	}
	if in, out := q.progress(); in != uint64(pushed) || out != in {
		t.Errorf("%d in, %d out of %d", in, out, pushed)
	}
	push(1)
	q.close()
	if item, ok := q.pop(); ok {
		t.Errorf("%d after the end", item)
	}
}

// What has gone through is not held on to, whatever way the queue grew.
func TestQueueForgets(t *testing.T) {
	q := newQueue[*int]()
	for _, depth := range []int{1, 3, cap(q.room), cap(q.room) + 1, 10 * cap(q.room)} {
		for range depth {
			q.push(new(int))
		}
		for range 3 * cap(q.room) { // never empty, it moves on through its room
			q.push(new(int))
			q.pop()
		}
		for range depth {
			q.pop()
		}
		for i, held := range q.room[:cap(q.room)] {
			if held != nil {
				t.Errorf("%d deep: item %d of the room is still there", depth, i)
			}
		}
	}
}
