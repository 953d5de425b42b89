/** A clock that moves only when told to; replaces setTimeout and Date.now until the test ends. */
export function fakeClock(t) {
  const real = { setTimeout, clearTimeout, now: Date.now };
  const timers = new Map();
  let now = 0;
  let ids = 0;
  globalThis.setTimeout = (f, ms = 0, ...args) => {
    timers.set(++ids, { at: now + ms, run: () => f(...args) });
    return ids;
  };
  globalThis.clearTimeout = (id) => void timers.delete(id);
  Date.now = () => now;
  t.after(() => {
    globalThis.setTimeout = real.setTimeout;
    globalThis.clearTimeout = real.clearTimeout;
    Date.now = real.now;
  });

  /** Lets everything happen that waits for no timer. */
  async function settle() {
    for (let i = 0; i < 20; i++) await new Promise(setImmediate);
  }

  return {
    settle,
    /** Lets ms milliseconds pass, one timer after the other. */
    async pass(ms) {
      const end = now + ms;
      await settle();
      for (;;) {
        const [id, next] = [...timers].sort((a, b) => a[1].at - b[1].at)[0] ?? [];
        if (!next || next.at > end) break;
        now = Math.max(now, next.at);
        timers.delete(id);
        next.run();
        await settle();
      }
      now = end;
    },
  };
}
