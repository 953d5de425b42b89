// Numbers instead of names in pushes.
import assert from 'node:assert/strict';
import { unique } from '../lib/env.mjs';
import { collect, connected, numbers, publish, raw } from '../lib/lab.mjs';

export default async function (step) {
  await step('the SDK finds its channels by number', async () => {
    const ann = await connected('ann');
    const subs = [await ann.join(`compact:${unique('a')}`), await ann.join(`compact:${unique('b')}`)];
    const heard = Promise.all(subs.map((sub) => collect(sub, 2)));
    for (const i of numbers(1, 2)) for (const sub of subs) await publish(sub.channel, `${sub.channel} ${i}`);
    (await heard).forEach((pubs, i) => assert.deepEqual(pubs.map((p) => p.data), [1, 2].map((n) => `${subs[i].channel} ${n}`)));
    ann.disconnect();
  });
  await step('no name on the wire, for those who asked', async () => {
    const channel = `compact:${unique('wire')}`;
    const [with1, without] = [await raw(), await raw()];
    with1.send({ id: 2, subscribe: { channel, flag: 1 } });
    without.send({ id: 2, subscribe: { channel } });
    const { id } = (await with1.json()).subscribe;
    assert.ok(id > 0);
    assert.equal((await without.json()).subscribe.id, undefined);
    await publish(channel, 1);
    const push = (await with1.json()).push;
    assert.deepEqual([push.id, push.channel], [id, undefined]);
    assert.equal((await without.json()).push.channel, channel);
    with1.ws.close();
    without.ws.close();
  });
}
