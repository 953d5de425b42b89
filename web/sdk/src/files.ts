import { parse } from './error.js';
import type { Answer, WxApi } from './wx.js';

/** The phone's files, as promises. */
export class Files {
  constructor(private readonly wx: WxApi) {}

  /** What reads and writes them; undefined where the platform has none. */
  get fs(): any {
    return this.wx.getFileSystemManager && this.wx.getFileSystemManager();
  }

  /** One call of it; rejects with what wx said. */
  ask<T = any>(method: string, options: object): Promise<T> {
    return new Promise((success, fail) => {
      const { fs } = this;
      if (!fs || !fs[method]) return fail({ errMsg: `${method}:fail not supported here` });
      fs[method]({ ...options, success, fail });
    });
  }

  /** What a file is by now, as far as the platform tells. */
  look(path: string): Promise<{ size?: number; modified?: number }> {
    return this.ask('stat', { path }).then(
      ({ stats }) => ({ size: stats.size, modified: stats.lastModifiedTime || undefined }),
      () => ({}),
    );
  }

  /** Bytes in the app's own folder; 0 where the platform does not tell. */
  used(): Promise<number> {
    const path = this.wx.env && this.wx.env.USER_DATA_PATH;
    if (!path) return Promise.resolve(0);
    return this.ask('stat', { path, recursive: true }).then(
      // A list of {path, stats}; of older wx an object, stats by path.
      ({ stats }) => Object.keys(stats).reduce((sum, key) => sum + sizeOf(stats[key].stats || stats[key]), 0),
      () => 0,
    );
  }

  remove(filePath: string): Promise<void> {
    return this.ask('unlink', { filePath }).then(() => undefined, () => undefined);
  }

  /** Where wx stored an error's body as if it were the file: reads and removes it. */
  async takeErrorBody({ filePath, tempFilePath }: Answer): Promise<unknown> {
    const path = filePath || tempFilePath;
    if (!path) return undefined;
    const body = await this.ask('readFile', { filePath: path, encoding: 'utf8' }).then(({ data }) => parse(data), () => undefined);
    await this.remove(path);
    return body;
  }
}

/** Folders have a size of their own, which does not count. */
function sizeOf(stats: any): number {
  return stats.isDirectory && stats.isDirectory() ? 0 : stats.size || 0;
}
