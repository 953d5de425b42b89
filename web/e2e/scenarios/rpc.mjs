// RPC to the business backend, which echoes method, data and identity.
import assert from 'node:assert/strict';
import { connected } from '../lib/lab.mjs';

export default async function (step) {
  const ann = await connected('ann');
  await step('the backend answers, and knows who asks', async () => {
    const { data } = await ann.rpc('echo', { a: [1] });
    assert.deepEqual([data.method, data.data, data.user], ['echo', { a: [1] }, ann.user]);
  });
  await step('answers keep apart', async () => {
    const answers = await Promise.all([1, 2, 3, 4, 5].map((i) => ann.rpc('echo', i)));
    assert.deepEqual(answers.map(({ data }) => data.data), [1, 2, 3, 4, 5]);
  });
  await step("the backend's own error arrives", () => assert.rejects(ann.rpc('fail', {}), { code: 1000 }));
  ann.disconnect();
}
