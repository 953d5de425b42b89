// Pages of history.
import assert from 'node:assert/strict';
import { api, unique } from '../lib/env.mjs';
import { connected, numbers, publish } from '../lib/lab.mjs';

export default async function (step) {
  const ann = await connected('reader');
  const channel = `recovery:${unique('pages')}`;
  for (const i of numbers(1, 10)) await publish(channel, i, i === 3 ? { tags: { p: 'odd' } } : {});
  const values = ({ publications }) => publications.map((p) => p.data);
  let epoch;

  await step('the position alone', async () => {
    const answer = await ann.history(channel, {});
    assert.deepEqual([answer.publications, answer.offset], [[], 10]);
    assert.ok((epoch = answer.epoch));
  });

  await step('forward, page by page', async () => {
    const seen = [];
    let since = { offset: 0, epoch };
    for (;;) {
      const page = await ann.history(channel, { limit: 4, since });
      if (!page.publications.length) break;
      seen.push(...page.publications);
      since = { offset: page.publications.at(-1).offset, epoch: page.epoch };
    }
    assert.deepEqual(seen.map((p) => [p.offset, p.data]), numbers(1, 10).map((i) => [i, i]));
    assert.deepEqual(seen[2].tags, { p: 'odd' });
  });

  await step('backward, page by page', async () => {
    const seen = [];
    let since;
    for (;;) {
      const page = await ann.history(channel, { limit: 3, reverse: true, ...(since && { since }) });
      if (!page.publications.length) break;
      seen.push(...values(page));
      since = { offset: page.publications.at(-1).offset, epoch: page.epoch };
      if (since.offset === 1) break;
    }
    assert.deepEqual(seen, numbers(1, 10).reverse());
  });

  await step('all of it', async () => {
    assert.deepEqual(values(await ann.history(channel, { limit: -1 })), numbers(1, 10));
    assert.deepEqual(values(await ann.history(channel, { limit: -1, reverse: true })), numbers(1, 10).reverse());
  });

  await step('another epoch: 112', () =>
    assert.rejects(ann.history(channel, { limit: 1, since: { offset: 1, epoch: 'other' } }), { code: 112 }));

  await step('backward from the very start: 107', () =>
    assert.rejects(ann.history(channel, { limit: 1, reverse: true, since: { offset: 0, epoch } }), { code: 107 }));

  await step('removed: empty, the position stays', async () => {
    await api('history_remove', { channel });
    const answer = await ann.history(channel, { limit: -1 });
    assert.deepEqual([answer.publications, answer.offset, answer.epoch], [[], 10, epoch]);
  });

  await step('what clients publish says who did', async () => {
    await ann.publish(channel, 'mine');
    const { publications } = await ann.history(channel, { limit: -1 });
    assert.deepEqual(publications.map((p) => [p.offset, p.data, p.info.user]), [[11, 'mine', ann.user]]);
  });
  ann.disconnect();
}
