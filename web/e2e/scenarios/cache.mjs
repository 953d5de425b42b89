// Recovery of the latest publication alone.
import assert from 'node:assert/strict';
import { unique } from '../lib/env.mjs';
import { connected, next, numbers, pick, publish } from '../lib/lab.mjs';

export default async function (step) {
  const ann = await connected('ann');
  for (const [what, missed, heardWant, recovered] of [['the latest of many', 5, [5, 'live'], true], ['nothing new', 0, ['live'], true]]) {
    await step(what, async () => {
      const sub = await ann.join(`cache:${unique('c')}`);
      const first = next(sub, 'publication');
      await publish(sub.channel, 'first');
      await first;
      const heard = [];
      sub.on('publication', (p) => heard.push(p.data));
      const subscribed = next(sub, 'subscribed');
      await ann.gone(ann.cut, async () => {
        for (const i of numbers(1, missed)) await publish(sub.channel, i);
      });
      assert.deepEqual(pick(await subscribed, 'wasRecovering', 'recovered'), { wasRecovering: true, recovered });
      const live = next(sub, 'publication', (p) => p.data === 'live');
      await publish(sub.channel, 'live');
      await live;
      assert.deepEqual(heard, heardWant);
    });
  }
  ann.disconnect();
}
