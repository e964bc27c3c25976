package endpoint

import (
	"context"
	"slices"
	"time"
)

const (
	// namesAge is after which time names are resolved again.
	namesAge = 30 * time.Second

	// namesPause is the least time between two resolutions, when connections fail.
	namesPause = time.Second

	// resolveTime bounds one resolution.
	resolveTime = 5 * time.Second
)

// resolve returns the addresses that names stand for.
func (c *Client) resolve(ctx context.Context, names []string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, resolveTime)
	defer cancel()
	var addrs []string
	for _, name := range names {
		found, err := c.d.Resolve(ctx, name)
		if err != nil {
			return nil, &Error{Code: Unavailable, Outcome: OutcomeNotRun, Message: "cannot resolve " + quoteName(name) + ": " + err.Error(), cause: err}
		}
		addrs = append(addrs, found...)
	}
	if len(addrs) == 0 {
		return nil, refusal(Unavailable, "%q stands for no address", names)
	}
	return addrs, nil
}

// keepNames resolves the names again and again. What cannot be resolved stays as
// it was: the nodes may be there though the resolver is not. It ends with Close.
func (c *Client) keepNames(names []string) {
	failing := false
	for last := time.Now(); ; last = time.Now() {
		select {
		case <-time.After(namesAge):
		case <-c.asked:
			if left := namesPause - time.Since(last); left > 0 {
				select {
				case <-time.After(left):
				case <-c.ctx.Done():
				}
			}
		case <-c.ctx.Done():
		}
		if c.ctx.Err() != nil {
			return
		}
		addrs, err := c.resolve(c.ctx, names)
		if err == nil {
			c.setNodes(addrs)
		} else if !failing && c.ctx.Err() == nil {
			c.logger.Warn("cannot resolve; the nodes stay as they were", "names", names, "error", err)
		}
		failing = err != nil
	}
}

// askAgain has the names resolved soon: a node has failed, and may have moved.
func (c *Client) askAgain() {
	select {
	case c.asked <- struct{}{}:
	default:
	}
}

// setNodes makes addrs the nodes of the Client. Those that are left out take no
// more calls, and have time to finish those under way. One goroutine calls it at a
// time. What is the user's, breakers and the log, is used without the lock.
func (c *Client) setNodes(addrs []string) {
	old := *c.nodes.Load()
	var nodes []*node
	for _, addr := range addrs {
		if slices.ContainsFunc(nodes, func(n *node) bool { return n.addr == addr }) {
			continue
		}
		i := slices.IndexFunc(old, func(n *node) bool { return n.addr == addr })
		if i >= 0 {
			nodes = append(nodes, old[i])
			continue
		}
		nodes = append(nodes, newNode(c, addr))
	}
	if !c.replaceNodes(nodes) {
		return
	}
	for _, n := range old {
		if !slices.Contains(nodes, n) {
			c.logger.Info("node left out", "addr", n.addr)
			n.leaveOut()
		}
	}
}

// replaceNodes puts nodes in place of those there were and runs the new ones,
// unless the Client is closed.
func (c *Client) replaceNodes(nodes []*node) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	for old, i := *c.nodes.Load(), 0; i < len(nodes); i++ {
		if !slices.Contains(old, nodes[i]) {
			c.wg.Go(func() { nodes[i].run(attempt{}) })
		}
	}
	c.nodes.Store(&nodes)
	c.changed.ring()
	c.usable.ring()
	return true
}
