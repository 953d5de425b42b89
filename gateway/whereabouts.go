package gateway

import (
	"context"
	"log/slog"
	"time"

	"github.com/minigate/minigate/auth"
)

// enlistTimeout is how long a connect command waits for the engine to note
// where its user is.
const enlistTimeout = time.Second

// enlist lets operations on the user find this node. If the engine cannot note
// it now, such operations ask this node in any case: the connection goes on.
func (c *client) enlist(ctx context.Context, user string) {
	if user == "" {
		return
	}
	c.mu.Lock()
	c.enlisted = true
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, enlistTimeout)
	defer cancel()
	if err := c.hub.engine.AddUser(ctx, user); err != nil {
		slog.Debug("user not entered into the index", "error", err)
	}
}

// delist is the end of enlist.
func (c *client) delist() {
	c.mu.Lock()
	listed := c.enlisted
	c.enlisted = false
	c.mu.Unlock()
	if listed {
		c.hub.engine.RemoveUser(c.user())
	}
}

// arrive tells who was let in.
func (c *client) arrive(user auth.User) {
	if c.hub.arrived != nil && user.OpenID != "" {
		c.inside = true
		c.hub.arrived(user)
	}
}

// depart is the end of arrive.
func (c *client) depart() {
	if !c.inside {
		return
	}
	c.mu.Lock()
	user := c.login.user()
	c.mu.Unlock()
	c.hub.left(user)
}
