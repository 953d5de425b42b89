import { fromWx, MinigateError } from './error.js';
import type { Files } from './files.js';
import type { DownloadedPart, RangeOptions } from './ranges.js';

const maxRoom = 200 << 20; // bytes WeChat lets a mini-program keep

/** A file that is joined from pieces, under another name until it is whole. */
export class Joint {
  private readonly growing: string;

  constructor(private readonly files: Files, private readonly filePath: string) {
    this.growing = `${filePath}.part`;
  }

  /** Makes room for `total` bytes in place of what was there; fails where there cannot be enough. */
  async begin(total: number): Promise<void> {
    if (!this.files.fs) throw new MinigateError('no_room', 'There is no file system here.');
    await this.files.remove(this.growing); // of an app that was killed
    const { size = 0 } = await this.files.look(this.filePath);
    const left = Math.min(maxRoom, maxRoom - (await this.files.used()) + size);
    if (total > left) throw new MinigateError('no_room', `The file has ${total} bytes, and there is room for ${Math.max(left, 0)}.`);
    await this.files.remove(this.filePath);
  }

  /** Appends a piece once `onPart` is done with it; the piece goes. */
  async append(part: DownloadedPart, onPart: RangeOptions['onPart']): Promise<void> {
    try {
      if (onPart) await onPart(part);
      const { data } = await this.files.ask('readFile', { filePath: part.tempFilePath }).catch((failure) => {
        throw fromWx(failure, 'file_unreadable');
      });
      await this.write(part.n === 1 ? 'writeFile' : 'appendFile', { filePath: this.growing, data });
    } finally {
      await this.files.remove(part.tempFilePath);
    }
  }

  finish(): Promise<void> {
    return this.write('rename', { oldPath: this.growing, newPath: this.filePath });
  }

  /** Nothing stays of a file that did not become whole. */
  drop(): Promise<void> {
    return this.files.remove(this.growing);
  }

  private write(method: string, options: object): Promise<void> {
    return this.files.ask(method, options).catch((failure) => {
      throw fromWx(failure, isFull(failure) ? 'no_room' : 'file_unwritable');
    });
  }
}

/** The app's share of the phone is used up, or the phone itself is. */
function isFull({ errno, errMsg }: { errno?: number; errMsg: string }): boolean {
  return errno === 1300202 || /storage limit|no space/i.test(errMsg);
}
