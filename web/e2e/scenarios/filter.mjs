// Filters by tags.
import assert from 'node:assert/strict';
import { unique } from '../lib/env.mjs';
import { collect, connected, next, numbers, publish } from '../lib/lab.mjs';

const odd = { key: 'p', cmp: 'eq', val: 'odd' };
const parity = (i) => ({ tags: { p: i % 2 ? 'odd' : 'even' } });

export default async function (step) {
  const ann = await connected('ann');
  await step('only what fits, live and recovered', async () => {
    const sub = await ann.join(`filter:${unique('f')}`, { tagsFilter: odd });
    const live = collect(sub, 3);
    for (const i of numbers(1, 5)) await publish(sub.channel, i, parity(i));
    assert.deepEqual((await live).map((p) => p.data), [1, 3, 5]);
    const recovered = collect(sub, 3);
    const subscribed = next(sub, 'subscribed');
    await ann.gone(ann.cut, async () => {
      for (const i of numbers(6, 10)) await publish(sub.channel, i, parity(i));
    });
    assert.equal((await subscribed).recovered, true);
    await publish(sub.channel, 11, parity(11));
    assert.deepEqual((await recovered).map((p) => p.data), [7, 9, 11]);
  });
  await step('refused where it is not allowed: 107', async () => {
    const sub = ann.sub(`room:${unique('f')}`, { tagsFilter: odd });
    const gone = next(sub, 'unsubscribed');
    sub.subscribe();
    assert.equal((await gone).code, 107);
  });
  ann.disconnect();
}
