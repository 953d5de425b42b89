package consumer

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	batchSize = 128             // entries in one reading
	newsWait  = time.Second     // how long Redis holds the question for news; a stop waits for it
	tendEvery = 5 * time.Second // measuring and trimming
	again     = 250 * time.Millisecond

	acquireEvery = time.Second     // at most
	extendEvery  = 5 * time.Second // at most
	wantedFor    = 8 * time.Second // longer than both
	giveEvery    = 4 * time.Second // so that others can say what they hold by then
	adoptMany    = 500             // entries of one other consumer at a time
)

// session is the time for which this node holds the lease of a stream.
type session struct {
	*stream
	token   string
	granted time.Time // before Redis was asked

	ctx   context.Context // ends when the lease is lost
	lose  context.CancelFunc
	given bool // away, to a node that has less
	lanes *lanes
	acks  acks
}

// acquire takes the lease; nil where another node has it.
func (s *stream) acquire(ctx context.Context) (*session, error) {
	ses := &session{stream: s, token: rand.Text(), granted: time.Now(), lanes: newLanes()}
	ok, err := acquireScript.Run(ctx, s.client, []string{s.lease, s.lease + wanted},
		ses.token, s.VisibilityTimeout.Milliseconds(), s.share.holds(), s.share.node, wantedFor.Milliseconds()).Bool()
	if err != nil || !ok {
		return nil, err
	}
	return ses, nil
}

// run consumes until stopping or the lease ends. It finishes what the workers
// have begun, unless ctx or the lease ends; the rest stays pending for who
// comes next.
func (ses *session) run(ctx, stopping context.Context) {
	ses.ctx, ses.lose = context.WithCancel(ctx)
	defer ses.lose()
	reading, stopReading := context.WithCancel(ses.ctx)
	defer stopReading()
	defer context.AfterFunc(stopping, stopReading)()
	ses.acks.init()

	var keeper, others, workers sync.WaitGroup
	keeper.Go(func() { ses.keepLease(stopReading) })
	others.Go(func() { ses.read(reading) })
	others.Go(func() { ses.lanes.clock(reading) })
	others.Go(func() { ses.tend(reading, stopReading) })
	for range ses.NumWorkers {
		workers.Go(func() { ses.work(stopping) })
	}
	acking, stopAcking := context.WithCancel(ses.ctx)
	defer stopAcking()
	var acker sync.WaitGroup
	acker.Go(func() { ses.acknowledge(acking) })

	<-reading.Done()
	ses.lanes.close()
	workers.Wait()
	others.Wait()
	stopAcking()
	acker.Wait()
	ses.release()
	ses.lose()
	keeper.Wait()
}

// keepLease makes the lease last, and ends the session a little before it
// would be over, so that nothing is begun that the next owner might be at. It
// has the session finish where a node wants the stream that has fewer.
func (ses *session) keepLease(finish func()) {
	defer ses.lose()
	length := ses.VisibilityTimeout - ses.VisibilityTimeout/10
	until := ses.granted.Add(length)
	for {
		sleep(ses.ctx, min(extendEvery, ses.VisibilityTimeout/4, time.Until(until)))
		sent := time.Now()
		if ses.ctx.Err() != nil {
			return
		}
		if !sent.Before(until) {
			ses.trouble.observe(errors.New("the lease could not be kept"))
			return
		}
		ctx, cancel := context.WithDeadline(ses.ctx, until)
		held, err := extendScript.Run(ctx, ses.client, []string{ses.lease, ses.lease + wanted}, ses.token, ses.VisibilityTimeout.Milliseconds()).Int()
		cancel()
		switch {
		case errors.Is(err, redis.Nil):
			ses.trouble.log.Warn("another node has taken the stream over")
			return
		case err == nil:
			until = sent.Add(length)
			if !ses.given && ses.share.gives(held, sent) {
				ses.given = true
				finish()
			}
		}
	}
}

// release lets another node have the stream at once.
func (ses *session) release() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ses.ctx), time.Second)
	defer cancel()
	_ = releaseScript.Run(ctx, ses.client, []string{ses.lease}, ses.token).Err() // else it ends by itself
}

// cursor is where a session is in its stream.
type cursor struct {
	from string // ">", or the id after which to read what is pending
	seen string // the last one taken, "" for none
	news string // after which to wait for more, "" where that is to be asked
}

// read brings entries into the lanes: first what is pending, then what is new.
func (ses *session) read(ctx context.Context) {
	for more := true; more && ctx.Err() == nil; {
		n, err := ses.adopt(ctx)
		more = ses.failed(ctx, err) || n > 0
	}
	c := cursor{from: "0"}
	for ctx.Err() == nil {
		n, err := ses.readOn(ctx, &c)
		switch {
		case ses.failed(ctx, err):
			// What was read may be pending although its answer was lost.
			c.from = cmp.Or(c.seen, "0")
		case n > 0:
		case c.from != ">":
			c.from = ">"
		default:
			ses.failed(ctx, ses.awaitNews(ctx, &c))
		}
	}
}

// readOn reads as much as there is room for, and tells how much it was.
func (ses *session) readOn(ctx context.Context, c *cursor) (int, error) {
	entries, bytes := ses.lanes.room()
	if entries == 0 {
		return 0, nil // closed
	}
	answer, err := readScript.Run(ctx, ses.client, []string{ses.lease, ses.name},
		ses.token, int64(ses.MaxEntry), ses.ConsumerGroup, reader, c.from, min(entries, batchSize), bytes).Result()
	if err != nil {
		return 0, err
	}
	list, err := parseShown(answer)
	for _, s := range list {
		e, reason := s.open()
		ses.lanes.add(item{id: s.id, entry: e, reason: reason})
		c.seen, c.news = s.id, s.id
		if c.from != ">" {
			c.from = s.id
		}
	}
	return len(list), err
}

// failed waits a moment where something went wrong. What can be mended is: a
// group that is not there is made.
func (ses *session) failed(ctx context.Context, err error) bool {
	switch {
	case err == nil:
		ses.trouble.observe(nil)
		return false
	case ctx.Err() != nil:
		return true
	case errors.Is(err, redis.Nil):
		ses.trouble.log.Warn("another node has taken the stream over")
		ses.lose()
		return true
	case strings.Contains(err.Error(), "NOGROUP"):
		err = ses.client.XGroupCreateMkStream(ctx, ses.name, ses.ConsumerGroup, "0").Err()
		if err == nil || strings.HasPrefix(err.Error(), "BUSYGROUP") {
			return true
		}
	}
	ses.trouble.observe(err)
	sleep(ctx, again)
	return true
}

// adopt claims what other consumers of the group have left for too long, such
// as those of another program, and tells how much it was.
func (ses *session) adopt(ctx context.Context) (int64, error) {
	return adoptScript.Run(ctx, ses.client, []string{ses.lease, ses.name},
		ses.token, ses.ConsumerGroup, reader, ses.VisibilityTimeout.Milliseconds(), adoptMany).Int64()
}

// awaitNews returns when there may be something new.
func (ses *session) awaitNews(ctx context.Context, c *cursor) error {
	if c.news == "" {
		groups, err := ses.client.XInfoGroups(ctx, ses.name).Result()
		if err != nil {
			return err
		}
		for _, g := range groups {
			if g.Name == ses.ConsumerGroup {
				c.news = g.LastDeliveredID
			}
		}
	}
	err := ses.client.XRead(ctx, &redis.XReadArgs{Streams: []string{ses.name, cmp.Or(c.news, "0")}, Count: 1, Block: newsWait}).Err()
	if errors.Is(err, redis.Nil) {
		return nil
	}
	c.news = "" // in case somebody moves the group, and this was no news
	return err
}

// tend measures and trims from time to time. It ends the session where there
// is something to adopt: the next one begins with that, in the right order.
func (ses *session) tend(ctx context.Context, restart func()) {
	for ctx.Err() == nil {
		if ses.tendOnce(ctx) > 0 {
			restart()
			return
		}
		sleep(ctx, tendEvery)
	}
}

// tendOnce tells how much others have left.
func (ses *session) tendOnce(ctx context.Context) (left int64) {
	trim := "0"
	if ses.Trim {
		trim = "1"
	}
	a, err := tendScript.Run(ctx, ses.client, []string{ses.name}, ses.ConsumerGroup, trim, reader, ses.VisibilityTimeout.Milliseconds()).Slice()
	if err != nil || len(a) != 4 {
		return 0 // the stream is not there yet; a Redis that is away is noticed by who reads
	}
	lag, _ := a[0].(int64)
	oldest, _ := a[1].(string)
	now, _ := a[2].(int64)
	ses.metrics.lag.WithLabelValues(ses.consumer, ses.name).Set(float64(lag))
	ses.metrics.oldest.WithLabelValues(ses.consumer, ses.name).Set(age(oldest, now))
	left, _ = a[3].(int64)
	return left
}
