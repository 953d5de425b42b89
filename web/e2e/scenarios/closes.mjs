// How connections end, and what the SDK makes of it.
import assert from 'node:assert/strict';
import { api, unique } from '../lib/env.mjs';
import { connected, jwt, next, now, pause, person, publish, transport } from '../lib/lab.mjs';

const kick = (user, code, reason) => api('disconnect', { user, disconnect: { code, reason } });

const codeAndReason = ({ code, reason }) => ({ code, reason });

/** The SDK comes back by itself. */
async function comesBack(client, end, code, reason) {
  const connecting = next(client, 'connecting');
  const back = next(client, 'connected');
  await end();
  const ctx = await connecting;
  assert.equal(ctx.code, code);
  if (reason) assert.equal(ctx.reason, reason);
  await back;
}

/** The SDK stays away. */
async function staysAway(client, end, code, reason) {
  const gone = next(client, 'disconnected');
  let tried = false;
  client.on('connecting', () => (tried = true));
  await end();
  const ctx = await gone;
  assert.equal(ctx.code, code);
  if (reason) assert.equal(ctx.reason, reason);
  assert.equal(tried, false);
  assert.equal(client.state, 'disconnected');
}

export default async function (step) {
  // Both need the seconds of grace: begun now, looked at in the end.
  const late = expiresUnanswered();
  const lateSub = subscriptionExpiresUnanswered();
  const slow = []; // steps that wait for a clock, beside the others

  const reconnect = [3000, 3001, 3004, 3005, 3006, 3008, 3009, 3010, 3011, 3012, 3013, 3014, 4000, 4499];
  const terminal = [3500, 3501, 3502, 3503, 3504, 3505, 3506, 3507, 3508, 3509, 4500, 4999];

  await step(`kicked with ${reconnect.join(', ')}: the SDK comes back`, async () => {
    const client = await connected('kicked');
    for (const code of reconnect) await comesBack(client, () => kick(client.user, code, 'some words'), code, 'some words');
    client.disconnect();
  });

  await step(`kicked with ${terminal.join(', ')}: the SDK stays away`, async () => {
    await Promise.all(terminal.map(async (code) => {
      const client = await connected('kicked');
      await staysAway(client, () => kick(client.user, code, 'some words'), code, 'some words');
    }));
  });

  await step('kicked with nothing said: 3503, for good', async () => {
    const client = await connected('kicked');
    await staysAway(client, () => api('disconnect', { user: client.user }), 3503, 'force disconnect');
  });

  await step('reasons that SDKs trip over are not sent', async () => {
    for (const [code, reason] of [[3503, ''], [3503, '  '], [4500, '404'], [3503, 'null']]) {
      const client = await connected('trap');
      await staysAway(client, () => kick(client.user, code, reason), code);
    }
    const client = await connected('trap');
    for (const reason of ['404', 'true', '{"reconnect":false}', '']) {
      await comesBack(client, () => kick(client.user, 3011, reason), 3011);
    }
    client.disconnect();
  });

  await step('codes below 3000 and from 5000 on are refused', async () => {
    for (const code of [1000, 2999, 5000]) await assert.rejects(kick('nobody', code, 'x'), /107/);
  });

  await step('a lost connection: code 1, the SDK comes back', async () => {
    const client = await connected('lost');
    await comesBack(client, client.cut, 1);
    client.disconnect();
  });

  slow[0] = step('pings that are not answered: 3012, the SDK comes back', async () => {
    const client = await connected('mute');
    client.deafMute = true;
    const connecting = next(client, 'connecting');
    const back = next(client, 'connected');
    assert.deepEqual((({ code, reason }) => ({ code, reason }))(await connecting), { code: 3012, reason: 'no pong' });
    client.deafMute = false;
    await back;
    client.disconnect();
  });

  slow[1] = step('pings that are answered keep a quiet connection', async () => {
    const client = await connected('quiet');
    let interrupted = false;
    client.on('connecting', () => (interrupted = true));
    await new Promise((resolve) => setTimeout(resolve, 5_000)); // two pings and a half
    assert.equal(interrupted, false);
    client.disconnect();
  });

  await step('send, which nobody handles: 3508, for good', async () => {
    const client = await connected('sender');
    await staysAway(client, () => client.send({ x: 1 }), 3508);
  });

  await step('a message that is too large: 1009, for good, code 3', async () => {
    const client = await connected('large');
    client.on('connecting', () => {});
    const gone = next(client, 'disconnected');
    client.publish(`room:${unique('large')}`, 'x'.repeat(70_000)).catch(() => {});
    assert.equal((await gone).code, 3);
  });

  await step('more connections than a user may have: 3504, for good', async () => {
    const token = jwt({ sub: unique('crowd') });
    const crowd = await Promise.all([1, 2, 3, 4].map(() => connected('crowd', { token })));
    const extra = person('crowd', { token });
    await staysAway(extra, () => extra.connect(), 3504).catch((e) => {
      if (!/true|tried/.test(String(e.actual))) throw e; // connect() itself says connecting
    });
    crowd.forEach((client) => client.disconnect());
  });

  await step('more channels of the server than allowed: 3505, for good', async () => {
    const channels = Array.from({ length: 20 }, () => `room:${unique('c')}`);
    const client = person('channels', { claims: { channels } });
    const gone = next(client, 'disconnected');
    client.connect();
    assert.equal((await gone).code, 3505);
  });

  slow[2] = step('an expired token in sub_refresh: 3006, back with a good one', async () => {
    const client = await connected('sub');
    const channel = `$room:${unique('sub')}`;
    const times = [now() + 1, now() - 1, now() + 600];
    const sub = await client.join(channel, { getToken: async () => jwt({ sub: client.user, channel, exp: times.shift() }) });
    const back = next(client, 'connected');
    const { code } = await next(client, 'connecting');
    assert.equal(code, 3006);
    await back;
    await sub.ready(10_000);
    client.disconnect();
  });

  await step('a client that reads nothing for long: it is dropped, comes back and recovers', async () => {
    if (transport !== 'ws') return; // only there can reading be held up
    const client = await connected('slow');
    const sub = await client.join(`recovery:${unique('slow')}`);
    const heard = [];
    const last = next(sub, 'publication', (p) => heard.push(p.data.i) && p.data.i === 90);
    client.socket()._socket.pause();
    const pad = 'x'.repeat(60_000);
    for (let i = 1; i <= 90; i++) await publish(sub.channel, { i, pad });
    client.socket()._socket.resume();
    await last;
    assert.deepEqual(heard, Array.from({ length: 90 }, (_, i) => i + 1));
    client.disconnect();
  }, 30_000);

  slow[3] = step('a position that is lost for good: 2500 of a subscription, 3010 of one of the server', async () => {
    // A stream that is forgotten after a second, while both listen.
    const own = await connected('lost');
    const sub = await own.join(`forgetful:${unique('lost')}`);
    const given = `forgetful:${unique('lost')}`;
    const theirs = await connected('lost', { claims: { channels: [given] } });
    const subscribing = next(sub, 'subscribing');
    const connecting = next(theirs, 'connecting');
    let lost = false;
    const both = Promise.all([subscribing, connecting]).then(() => (lost = true));
    for (let i = 1; !lost; i++) {
      await Promise.all([publish(sub.channel, i), publish(given, i)]);
      await Promise.race([both, pause(1_500)]);
    }
    assert.deepEqual(codeAndReason(await subscribing), { code: 2500, reason: 'insufficient state' });
    assert.deepEqual(codeAndReason(await connecting), { code: 3010, reason: 'insufficient state' });
    await Promise.all([sub.ready(10_000), theirs.ready(10_000)]);
    own.disconnect();
    theirs.disconnect();
  });

  await step('more commands than a connection may send: 111, then 3013, the SDK comes back', async () => {
    const client = await connected('hasty');
    const connecting = next(client, 'connecting');
    const back = next(client, 'connected');
    client.startBatching();
    const answers = Array.from({ length: 500 }, () => client.presenceStats(`room:${client.user}`).catch((e) => e));
    client.stopBatching();
    assert.deepEqual(codeAndReason(await connecting), { code: 3013, reason: 'too many requests' });
    const codes = (await Promise.all(answers)).map(({ code }) => code);
    assert.equal(codes[0], undefined);
    assert.ok(codes.filter((code) => code === 111).length >= 200, String(codes));
    await back;
    client.disconnect();
  });

  await step('a token that expires unanswered: 3005 after the grace', () => late);
  await step('a subscription that expires unanswered: 2501 after the grace, subscribed anew', () => lateSub);
  await Promise.all(slow);
}

async function expiresUnanswered() {
  let asked = 0;
  const user = unique('late');
  const client = person('late', {
    getToken: () => (asked++ === 1 ? new Promise(() => {}) : jwt({ sub: user, exp: now() + 2 })),
  });
  await client.ready2();
  const { code, reason } = await next(client, 'connecting');
  assert.deepEqual({ code, reason }, { code: 3005, reason: 'connection expired' });
  client.disconnect();
}

async function subscriptionExpiresUnanswered() {
  const client = await connected('late');
  const channel = `$room:${unique('late')}`;
  let asked = 0;
  const sub = await client.join(channel, {
    getToken: () => (asked++ === 1 ? new Promise(() => {}) : jwt({ sub: client.user, channel, exp: now() + 2 })),
  });
  const { code } = await next(sub, 'subscribing');
  assert.equal(code, 2501);
  await next(sub, 'subscribed');
  client.disconnect();
}
