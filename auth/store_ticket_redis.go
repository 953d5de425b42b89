package auth

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"
)

// nodeSkew is how far the clocks of nodes may differ: one that is behind takes
// a ticket for that much longer.
const nodeSkew = time.Minute

// UseTicket implements Store with ticket:ID, an empty string whose TTL is what
// is left of the ticket.
func (s *RedisStore) UseTicket(ctx context.Context, id TicketID, expires time.Time) (first bool, err error) {
	ttl := max(time.Until(expires), 0) + nodeSkew
	err = s.client.SetArgs(ctx, s.prefix+"ticket:"+strict.EncodeToString(id[:]), "", redis.SetArgs{Mode: "NX", TTL: ttl}).Err()
	if errors.Is(err, redis.Nil) {
		return false, nil
	}
	return err == nil, storeError(err)
}
