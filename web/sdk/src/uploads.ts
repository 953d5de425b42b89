import { crc32c } from './crc32c.js';
import { fromAnswer, fromWx, MinigateError, parse } from './error.js';
import type { FileRecord } from './http.js';
import type { Call } from './task.js';
import type { WxApi } from './wx.js';

/** What an upload is made of, once its size is known. */
export interface Source {
  filePath: string;
  size: number;
  /** When it changed; where nobody knows, an upload of it is not gone on with. */
  modified?: number;
  fileName?: string;
  type?: string;
  mode?: 'form' | 'parts';
  parallel?: number;
  /** Who may read it beside its user, as a query; '' is nobody. */
  access: string;
  /** What else goes to wx as it is. */
  wxOptions: Record<string, any>;
}

/** Where an upload goes, as minigate answers. */
interface Direct {
  id: string;
  mode: 'form' | 'parts';
  target: 'storage' | 'gateway';
  upload?: { url: string; name: string; formData?: Record<string, string> };
  part_size: number;
  received: number;
  missing: number[];
  /** Of missing parts, at most a hundred. */
  put?: Array<{ n: number; size: number; url: string }>;
  file?: FileRecord;
  /** What was sent to the storage did not get there. */
  missed?: boolean;
}

/** Where a client has uploads sent; undefined leaves it to minigate. */
type Target = 'gateway' | undefined;

/** One call of minigate with the token: what it answers, parsed. */
export type Json = (call: Call, method: string, path: string, data?: object) => Promise<any>;

const maxTries = 10; // of one part, over some 90 seconds
const maxConfirms = 3;
const maxKept = 20; // uploads that are remembered
const detourFor = 10 * 60_000; // milliseconds without another look at a storage that was out of reach

/** The way of an upload: asked where it goes, sent there, confirmed. */
export class Uploads {
  private readonly detourKey: string;

  constructor(
    private readonly wx: WxApi,
    private readonly baseUrl: string,
    private readonly storageKey: string,
    private readonly json: Json,
  ) {
    this.detourKey = `${storageKey}:detour`;
  }

  async send(call: Call, source: Source): Promise<FileRecord> {
    const direct = await this.begin(call, source);
    try {
      return await this.finish(call, source, direct);
    } catch (error) {
      if (call.aborted || !direct.missed) throw error;
    }
    const other = await this.reserve(call, source, 'gateway'); // which can be reached
    this.divert();
    return this.finish(call, source, other);
  }

  private async finish(call: Call, source: Source, direct: Direct): Promise<FileRecord> {
    let file = direct.file;
    try {
      if (!file) file = await (direct.mode === 'form' ? this.form(call, source, direct) : this.parts(call, source, direct));
      if (!file) file = await this.confirm(call, direct.id);
    } catch (error) {
      if (call.aborted || direct.mode === 'form' || !source.modified) {
        const gone = this.abandon(direct.id, source, call);
        if (direct.missed) await gone; // it counts until then
      } else if (isOver(error)) this.forget(source);
      throw error;
    }
    this.forget(source);
    return file;
  }

  /** What came once more just now, after its sender had given up on it, is looked at again. */
  private async confirm(call: Call, id: string): Promise<FileRecord> {
    for (let tries = 1; ; tries++) {
      try {
        return await this.json(call, 'POST', `/files/${id}/confirm`);
      } catch (error) {
        const changed = error instanceof MinigateError && (error.code === 'parts_changed' || error.code === 'upload_changed');
        if (!changed || tries >= maxConfirms) throw error;
      }
    }
  }

  /** Goes on with an upload that is remembered, unless the file changed since, or asks for a new one. */
  private async begin(call: Call, source: Source): Promise<Direct> {
    const kept = this.kept()[keyOf(source)];
    if (kept && (!source.modified || kept.modified !== source.modified)) {
      await this.abandon(kept.id, source, call); // it counts until then
    } else if (kept) {
      try {
        return await this.readdress(call, kept.id, 1, this.detour());
      } catch (error) {
        if (!isOver(error)) throw error;
        this.forget(source);
      }
    }
    return this.reserve(call, source, this.detour());
  }

  private async reserve(call: Call, source: Source, target: Target): Promise<Direct> {
    const { fileName: name, size, type, mode, access } = source;
    const wish = { name, size, type, mode: this.slices() ? mode : 'form', target };
    const direct: Direct = await this.json(call, 'POST', `/files/direct${access && `?${access}`}`, wish);
    if (direct.mode === 'parts') this.remember(source, direct.id);
    return direct;
  }

  private readdress(call: Call, id: string, from: number, target: Target): Promise<Direct> {
    return this.json(call, 'GET', `/files/direct/${id}?from=${from}${target ? `&target=${target}` : ''}`);
  }

  /** One form. The gateway answers it with the file, the storage does not. */
  private async form(call: Call, { filePath, wxOptions }: Source, direct: Direct): Promise<FileRecord | undefined> {
    const { upload, target } = direct;
    const { url, name, formData } = upload!;
    let sent = 0;
    const options = { ...wxOptions, url: this.absolute(url), filePath, name, formData };
    const answer = await call.send(options, undefined, (p) => ((sent = p.sent), p)).catch((error) => {
      direct.missed = target === 'storage' && isOutOfReach(error) && (error.code !== 'timeout' || sent === 0);
      throw error;
    });
    const data: any = parse(answer.data);
    if (answer.statusCode >= 400) throw fromAnswer(answer, data);
    return target === 'gateway' && data && data.id ? data : undefined;
  }

  /** The missing parts, a few at a time. */
  private async parts(call: Call, source: Source, direct: Direct): Promise<undefined> {
    const total = source.size;
    const todo = direct.missing.slice();
    const addresses = new Addresses(direct, async (from, detour) => {
      const more = await this.readdress(call, direct.id, from, detour ? 'gateway' : this.detour());
      if (detour) this.divert();
      return more;
    });
    let sent = direct.received;
    call.tell({ progress: percent(sent, total), sent, total });
    const worker = async () => {
      for (let n = todo.shift(); n !== undefined; n = todo.shift()) {
        try {
          const size = await this.part(call, source, direct, addresses, n);
          sent += size; // not in one step: the other workers count meanwhile
        } catch (error) {
          todo.length = 0; // the other workers end with their part
          throw error;
        }
        call.tell({ progress: percent(sent, total), sent, total });
      }
    };
    const workers = Array.from({ length: Math.min(Math.max(source.parallel || 2, 1), 3) }, worker);
    const results = await Promise.all(workers.map((w) => w.then(() => undefined, (error) => ({ error }))));
    const failed = results.find((r) => r !== undefined);
    if (failed) throw failed.error;
    return undefined;
  }

  /** Sends one part, again and again where the line or the server fails. */
  private async part(call: Call, source: Source, direct: Direct, addresses: Addresses, n: number): Promise<number> {
    let misses = 0; // in a row
    for (let tries = 1; ; tries++) {
      let url: string | undefined;
      try {
        const position = (n - 1) * direct.part_size;
        const size = Math.min(direct.part_size, source.size - position);
        const address = (url = await addresses.of(n));
        if (!address) return size; // it arrived, and only the answer did not
        const read = async () => {
          const data = await this.slice(source.filePath, position, size);
          return { ...source.wxOptions, url: this.absolute(address), method: 'PUT', data, header: this.partHeader(address, data) };
        };
        const answer = await call.send(read, 'request');
        if (answer.statusCode >= 400) throw fromAnswer(answer, parse(answer.data));
        return size;
      } catch (error) {
        if (call.aborted) throw call.aborted;
        const again = againAfter(error);
        if (!again || tries >= maxTries) throw error;
        if (again === 'address') addresses.drop();
        misses = url && !this.isOurs(url) && isOutOfReach(error) ? misses + 1 : 0;
        if (misses > 1 || (misses && isForbidden(error))) addresses.reroute();
        await call.pause(Math.min(1000 * 2 ** (tries - 1), 15_000) * (0.5 + Math.random() / 2));
        if (call.aborted) throw call.aborted;
      }
    }
  }

  /** To minigate a part has its checksum with it; to the storage only what was signed. */
  private partHeader(url: string, data: ArrayBuffer): Record<string, string> {
    const header: Record<string, string> = { 'content-type': 'application/octet-stream' };
    if (this.isOurs(url)) header['X-Checksum-Crc32c'] = crc32c(data);
    return header;
  }

  private absolute(url: string): string {
    return url.charAt(0) === '/' ? this.baseUrl + url : url;
  }

  private isOurs(url: string): boolean {
    return this.absolute(url).indexOf(`${this.baseUrl}/`) === 0;
  }

  /** What reads slices of files, where the platform has it. */
  private slices(): any {
    const fs = this.wx.getFileSystemManager && this.wx.getFileSystemManager();
    return fs && fs.readFile ? fs : undefined;
  }

  private slice(filePath: string, position: number, length: number): Promise<ArrayBuffer> {
    return new Promise((resolve, reject) => {
      const fs = this.slices();
      const fail = (failure: any) => reject(fromWx(failure, 'file_unreadable'));
      if (!fs) return fail({ errMsg: 'readFile:fail not supported here' });
      fs.readFile({
        filePath,
        position,
        length,
        success: ({ data }: any) =>
          data.byteLength === length ? resolve(data) : fail({ errMsg: `readFile:fail the file has changed: ${data.byteLength} of ${length} bytes` }),
        fail,
      });
    });
  }

  /** Tells the server that nobody goes on; what does not arrive expires there. */
  private abandon(id: string, source: Source, call: Call): Promise<unknown> {
    this.forget(source);
    return this.json(call.detached(), 'DELETE', `/files/direct/${id}`).catch(() => undefined);
  }

  /** Where uploads have to go since the storage was out of reach a while ago. */
  private detour(): Target {
    try {
      const left = this.wx.getStorageSync(this.detourKey) - Date.now();
      return left > 0 && left <= detourFor ? 'gateway' : undefined;
    } catch {
      return undefined;
    }
  }

  /** The storage is out of reach, and the gateway is not. */
  private divert(): void {
    try {
      this.wx.setStorageSync(this.detourKey, Date.now() + detourFor);
    } catch {
      // full storage: the next upload finds out by itself
    }
  }

  private kept(): Record<string, { id: string; at: number; modified?: number }> {
    try {
      const kept = this.wx.getStorageSync(this.storageKey);
      return kept && typeof kept === 'object' ? kept : {};
    } catch {
      return {};
    }
  }

  private remember(source: Source, id: string): void {
    const kept = this.kept();
    kept[keyOf(source)] = { id, at: Date.now(), modified: source.modified };
    const oldest = Object.keys(kept).sort((a, b) => kept[a].at - kept[b].at);
    for (const key of oldest.slice(0, -maxKept)) delete kept[key];
    this.keep(kept);
  }

  private forget(source: Source): void {
    const kept = this.kept();
    if (!kept[keyOf(source)]) return;
    delete kept[keyOf(source)];
    this.keep(kept);
  }

  private keep(kept: object): void {
    try {
      if (Object.keys(kept).length) this.wx.setStorageSync(this.storageKey, kept);
      else this.wx.removeStorageSync(this.storageKey);
    } catch {
      // full storage: the upload starts anew after a restart of the app
    }
  }
}

/** The addresses of missing parts, which come by the hundred and expire. */
class Addresses {
  private known: Record<number, string> = {};
  private asking?: Promise<Direct>;
  private detour = false;

  constructor(first: Direct, private readonly ask: (from: number, detour: boolean) => Promise<Direct>) {
    this.learn(first);
  }

  /** Where part n goes; undefined where it is there. */
  async of(n: number): Promise<string | undefined> {
    while (!this.known[n]) {
      const mine = !this.asking;
      if (!this.asking) {
        this.asking = this.ask(n, this.detour);
        const done = () => (this.asking = undefined);
        const failed = () => {
          done();
          this.detour = false; // the gateway cannot be reached either: there is no line
        };
        this.asking.then(done, failed);
      }
      const direct = await this.asking;
      this.learn(direct);
      if (mine && !this.known[n]) return undefined;
    }
    return this.known[n];
  }

  /** They are not good any more. */
  drop(): void {
    this.known = {};
  }

  /** The storage is out of reach: they are to be at the gateway. */
  reroute(): void {
    this.drop();
    this.detour = true;
  }

  private learn({ put }: Direct): void {
    for (const { n, url } of put || []) this.known[n] = url;
  }
}

/** The same file, as far as its name goes. */
function keyOf({ filePath, size, fileName, access }: Source): string {
  return `${size} ${fileName || ''} ${filePath}${access && ` ${access}`}`;
}

/** Nobody answered. */
function isOutOfReach(error: unknown): boolean {
  return error instanceof MinigateError && (error.code === 'network_error' || error.code === 'timeout');
}

/** The mini-program may not speak to that domain, and never will. */
function isForbidden(error: unknown): boolean {
  return error instanceof MinigateError && /domain list/i.test(error.errMsg);
}

/** The upload is no more: it has to begin anew. */
function isOver(error: unknown): boolean {
  return error instanceof MinigateError && (error.statusCode === 404 || error.statusCode === 410);
}

/** Whether what failed may work when it is tried again, and with what. */
function againAfter(error: unknown): '' | 'same' | 'address' {
  if (!(error instanceof MinigateError)) return '';
  const { statusCode: status, code } = error;
  if (status === 0) return code === 'network_error' || code === 'timeout' || code === 'interrupted' ? 'same' : '';
  if (status === 401 || status === 403) return 'address';
  return status === 408 || status === 429 || status >= 500 || code === 'checksum_mismatch' || code === 'upload_torn' ? 'same' : '';
}

function percent(sent: number, total: number): number {
  return total ? Math.floor((100 * sent) / total) : 100;
}
