// A line to the gateway that breaks when somebody has sent too much over it.
import { connect, createServer } from 'node:net';
import { baseUrl } from './env.mjs';

/**
 * Listens on a port of its own and passes on what comes. `breakAfter(bytes)`
 * breaks the connection that has sent so much since then, once.
 */
export async function badLine() {
  const target = new URL(baseUrl);
  let left = Infinity;
  let broken = 0;
  const server = createServer((client) => {
    const gateway = connect(Number(target.port), target.hostname);
    const end = () => {
      client.destroy();
      gateway.destroy();
    };
    for (const socket of [client, gateway]) socket.on('error', end).on('close', end);
    gateway.pipe(client);
    client.on('data', (data) => {
      left -= data.length;
      if (left > 0) {
        if (!gateway.write(data)) {
          client.pause();
          gateway.once('drain', () => client.resume());
        }
        return;
      }
      left = Infinity;
      broken++;
      // What came before the break arrives, as it does when a phone loses its net.
      gateway.end(data.subarray(0, data.length >> 1));
      client.destroy();
    });
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    breakAfter: (bytes) => (left = bytes),
    broken: () => broken,
    close: () => server.close(),
  };
}
