import { fromAnswer, MinigateError } from './error.js';
import type { Files } from './files.js';
import { Joint } from './joint.js';
import type { Call } from './task.js';
import type { Answer } from './wx.js';

/** A piece of a file that is downloaded in pieces. */
export interface DownloadedPart {
  /** 1 for the first. */
  n: number;
  tempFilePath: string;
  /** Where in the file it begins, in bytes. */
  offset: number;
  size: number;
  /** Bytes of the whole file. */
  total: number;
}

/** What {@link Ranges.fetch} needs to know. */
export interface RangeOptions {
  header?: Header;
  filePath?: string;
  onPart?(part: DownloadedPart): void | PromiseLike<void>;
  partSize?: number;
  join?: boolean;
  [wxOption: string]: unknown;
}

type Header = Record<string, string>;

/** Sends with the token to where the file is; where the token is refused, once more after a login. */
export type Authorized = <R>(header: Header, send: (url: string, header: Header) => Promise<R>) => Promise<R>;

/** Where in a file a piece is. */
interface Place {
  offset: number;
  size: number;
  total: number;
}

const maxPiece = 100 << 20; // what a phone reads of one file
const maxTries = 5; // of one piece

/** Downloads in pieces, each a call of wx.downloadFile. */
export class Ranges {
  constructor(private readonly files: Files) {}

  async fetch(call: Call, options: RangeOptions, authorized: Authorized): Promise<Answer> {
    const { header = {}, filePath, onPart, partSize, join, ...wxOptions } = options;
    if (join && !filePath) throw new MinigateError('bad_options', 'join needs a filePath.');
    const { total, etag } = await authorized(header, (url, header) => this.look(call, url, header));
    const same: Header = etag ? { ...header, 'If-Match': etag } : header; // or pieces of two files would be joined
    const most = Math.min(partSize || (join ? 8 << 20 : 32 << 20), maxPiece);
    const joint = join ? new Joint(this.files, filePath!) : undefined;
    if (joint) await joint.begin(total);
    try {
      for (let n = 1, offset = 0; n === 1 || offset < total; n++) {
        const place = { offset, size: Math.min(most, total - offset), total };
        const part = { n, ...place, tempFilePath: await this.piece(call, wxOptions, place, same, authorized) };
        if (joint) await joint.append(part, onPart);
        else if (onPart) await onPart(part);
        if (call.aborted) throw call.aborted;
        offset += part.size;
      }
      if (joint) await joint.finish();
    } catch (error) {
      if (joint) await joint.drop();
      throw error;
    }
    return { statusCode: 200, errMsg: 'downloadFile:ok', ...(join ? { filePath } : {}) };
  }

  /** How large the file is, and which version of it. */
  private async look(call: Call, url: string, header: Header): Promise<{ total: number; etag?: string }> {
    const answer = await call.send({ url, method: 'HEAD', header }, 'request');
    if (answer.statusCode >= 400) throw fromAnswer(answer, undefined);
    const field = (name: string) => {
      const key = Object.keys(answer.header || {}).find((k) => k.toLowerCase() === name);
      return key && answer.header![key];
    };
    const total = Number(field('content-length'));
    if (!(total >= 0)) throw new MinigateError('bad_answer', 'The server does not tell the size of the file.');
    return { total, etag: field('etag') };
  }

  /** One piece as a temporary file, again where the line fails. */
  private async piece(call: Call, wxOptions: object, place: Place, same: Header, authorized: Authorized): Promise<string> {
    const { offset, size } = place;
    const header = size ? { ...same, Range: `bytes=${offset}-${offset + size - 1}` } : same;
    for (let tries = 1; ; tries++) {
      try {
        return await authorized(header, (url, header) => this.once(call, { ...wxOptions, url, header }, place));
      } catch (error) {
        if (call.aborted || tries >= maxTries || !(error instanceof MinigateError) || error.statusCode) throw error;
        await call.pause(1000 * 2 ** (tries - 1));
        if (call.aborted) throw call.aborted;
      }
    }
  }

  private async once(call: Call, options: object, { offset, size, total }: Place): Promise<string> {
    const answer = await call.send(options, 'downloadFile', (p) => {
      const sent = offset + p.sent;
      return { progress: total ? Math.floor((100 * sent) / total) : 100, sent, total };
    });
    if (answer.statusCode === (size ? 206 : 200)) return answer.tempFilePath!;
    const body = await this.files.takeErrorBody(answer);
    if (answer.statusCode >= 400) throw fromAnswer(answer, body);
    throw new MinigateError('bad_answer', 'The server does not send pieces of this file.', { statusCode: answer.statusCode });
  }
}
