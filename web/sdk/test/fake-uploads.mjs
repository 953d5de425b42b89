// A gate that takes direct uploads, in forms and in parts.
import { createClient } from '../dist/index.mjs';
import { fakeGate, fakeWx, refusal } from './fake-wx.mjs';

export const baseUrl = 'https://gate.example.com';
export const storage = 'https://storage.example.com';

/** A gate with direct uploads. `fail(request)` may answer a request in its place, or hold it up. */
export function setup({ target = 'gateway', partSize = 10, page = 100, routes = {}, fail = () => undefined } = {}) {
  const uploads = new Map();
  let ids = 0;
  let round = 0; // addresses of earlier ones are not good any more
  const sizeOf = (u, n) => Math.min(partSize, u.size - (n - 1) * partSize);
  const look = (u, from = 1, target = u.target) => {
    const at = target === 'gateway' ? `/files/uploads` : storage;
    const count = Math.ceil(u.size / partSize);
    const missing = Array.from({ length: count }, (_, i) => i + 1).filter((n) => !u.parts.has(n));
    const common = { id: u.id, mode: u.mode, target, file: u.file };
    if (u.mode === 'form') return { ...common, upload: { url: `${at}/${u.id}/form?ticket=t`, name: 'file', formData: { key: 'k', policy: 'p' } } };
    const put = missing.filter((n) => n >= from).slice(0, page).map((n) => ({ n, size: sizeOf(u, n), url: `${at}/${u.id}/parts/${n}?round=${round}` }));
    const received = [...u.parts.values()].reduce((sum, p) => sum + p.byteLength, 0);
    return { ...common, part_size: partSize, received, missing, put };
  };
  const finish = (u) => {
    u.file = { id: u.id, name: u.name, size: u.size, type: 'x/y', url: `/files/${u.id}` };
    return { statusCode: 201, data: u.file };
  };
  const gate = fakeGate({
    ...routes,
    '/files/direct': ({ url, data: { name, size, type, mode, target: wish = target } }) => {
      const u = { id: `u${++ids}`, name, size, type, mode: mode || (size > 20 ? 'parts' : 'form'), target: wish, parts: new Map(), query: url.split('?')[1] };
      uploads.set(u.id, u);
      return { statusCode: 201, data: look(u) };
    },
  });
  const serve = async (request) => {
    const early = await fail(request);
    if (early) return early;
    const [path, query = ''] = request.url.replace(baseUrl, '').replace(storage, '/files/uploads').split('?');
    const [, kind, id, what, n] = path.match(/^\/files\/(?:(direct|uploads)\/)?(\w+)(?:\/(form|parts|confirm))?(?:\/(\d+))?$/) || [];
    const u = uploads.get(id);
    if (!id || id === 'direct' || routes[path]) return gate.serve(request);
    if (!u) return refusal(404, 'upload_not_found');
    if (kind === 'direct' && request.method === 'DELETE') return { statusCode: 204, data: uploads.delete(id) && '' };
    if (kind === 'direct') return { statusCode: 200, data: look(u, Number((query.match(/from=(\d+)/) || [])[1] || 1), (query.match(/target=(\w+)/) || [])[1]) };
    if (what === 'form') {
      u.form = request;
      return u.target === 'gateway' ? finish(u) : { statusCode: 200, data: '' };
    }
    if (what === 'parts') {
      if (query !== `round=${round}`) return { statusCode: 403, data: '<Error><Code>AccessDenied</Code></Error>' };
      if (request.data.byteLength !== sizeOf(u, Number(n))) return refusal(400, 'part_size_invalid');
      u.parts.set(Number(n), request.data);
      return { statusCode: 200, data: { n: Number(n) } };
    }
    if (what === 'confirm') return u.mode === 'parts' && look(u).missing.length ? refusal(409, 'parts_missing') : finish(u);
    return refusal(404, 'not_found');
  };
  const wx = fakeWx({ serve });
  const content = Uint8Array.from({ length: 45 }, (_, i) => i);
  wx.files.set('tmp/large', content.buffer);
  wx.files.set('tmp/small', 'four');
  return { gate, wx, uploads, content, expire: () => round++, client: createClient({ baseUrl, wx }) };
}

export const puts = (wx) => wx.calls.filter((c) => c.method === 'PUT');
export const whole = (u) => Buffer.concat([...u.parts].sort((a, b) => a[0] - b[0]).map(([, data]) => Buffer.from(data)));
