// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"slices"
	"sync"
)

// changes hands on the IDs of machines that changed, each once until it is
// received, and never makes the one who reports wait.
type changes struct {
	out    chan string
	wake   chan struct{}
	done   chan struct{}
	closed chan struct{}

	mu      sync.Mutex // guards pending
	pending []string
}

func newChanges() *changes {
	c := &changes{out: make(chan string), wake: make(chan struct{}, 1), done: make(chan struct{}), closed: make(chan struct{})}
	go c.run()
	return c
}

func (c *changes) add(id string) {
	c.mu.Lock()
	if !slices.Contains(c.pending, id) {
		c.pending = append(c.pending, id)
	}
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *changes) next() (string, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.pending) == 0 {
		return "", false
	}
	id := c.pending[0]
	c.pending = c.pending[1:]
	return id, true
}

func (c *changes) run() {
	defer close(c.closed)
	for {
		select {
		case <-c.done:
			return
		case <-c.wake:
		}
		for id, ok := c.next(); ok; id, ok = c.next() {
			select {
			case c.out <- id:
			case <-c.done:
				return
			}
		}
	}
}

func (c *changes) close() {
	close(c.done)
	<-c.closed
}
