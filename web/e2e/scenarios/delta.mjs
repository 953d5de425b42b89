// Fossil deltas: applications see whole values.
import assert from 'node:assert/strict';
import { unique } from '../lib/env.mjs';
import { collect, connected, next, numbers, publish, raw } from '../lib/lab.mjs';

const value = (i) => ({ text: 'the same long text again and again, so that a delta pays '.repeat(4), i });

export default async function (step) {
  const ann = await connected('ann');
  await step('live and recovered values are whole', async () => {
    const sub = await ann.join(`delta:${unique('d')}`, { delta: 'fossil' });
    const live = collect(sub, 3);
    for (const i of numbers(1, 3)) await publish(sub.channel, value(i));
    assert.deepEqual((await live).map((p) => p.data), numbers(1, 3).map(value));
    const recovered = collect(sub, 4);
    await ann.gone(ann.cut, async () => {
      for (const i of numbers(4, 6)) await publish(sub.channel, value(i));
    });
    await publish(sub.channel, value(7));
    assert.deepEqual((await recovered).map((p) => p.data), numbers(4, 7).map(value));
  });
  await step('on the wire they are short', async () => {
    const channel = `delta:${unique('wire')}`;
    const w = await raw();
    w.send({ id: 2, subscribe: { channel, delta: 'fossil' } });
    assert.equal((await w.json()).subscribe.delta, true);
    for (const i of [1, 2]) await publish(channel, value(i));
    const [first, second] = [await w.json(), await w.json()];
    assert.deepEqual([JSON.parse(first.push.pub.data), first.push.pub.delta], [value(1), undefined]);
    assert.equal(second.push.pub.delta, true);
    assert.ok(second.push.pub.data.length < first.push.pub.data.length / 4);
    w.ws.close();
  });
  await step('who did not ask gets the plain value', async () => {
    const sub = await ann.join(`delta:${unique('plain')}`);
    const heard = next(sub, 'publication');
    await publish(sub.channel, value(1));
    assert.deepEqual((await heard).data, value(1));
  });
  ann.disconnect();
}
