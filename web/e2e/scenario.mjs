// Scenarios of the stock centrifuge SDK, group by group; needs a node that is
// configured for them, see cmd/minigate/scenario_test.go.
//   GROUPS  names of groups, comma separated
import { connected, leaveAll, next, transport } from './lib/lab.mjs';
import { done, group, step } from './lib/steps.mjs';

const { GROUPS, PID } = process.env;
// Groups run side by side: the slowest, which waits for grace periods, decides.
await Promise.all(
  GROUPS.split(',').map(async (name) => {
    const { default: run } = await import(`./scenarios/${name}.mjs`);
    await run(group(name));
  }),
);

if (PID) {
  await step(`${transport}: at shutdown clients are told 3001 and try again`, async () => {
    const client = await connected();
    const gone = next(client, 'connecting');
    process.kill(Number(PID), 'SIGTERM');
    const { code, reason } = await gone;
    if (code !== 3001 || reason !== 'shutdown') throw new Error(`${code} ${reason}`);
  });
}
leaveAll();
done();
