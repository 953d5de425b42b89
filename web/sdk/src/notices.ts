import type { PublicationContext } from 'centrifuge';
import type { FileRecord } from './http.js';
import { later } from './task.js';

/** What the server tells of a file while the socket is open. */
export interface FileNotice {
  /**
   * `file_ready` and `file_blocked`: what became of a file of this user;
   * `file_shared`: one that the members of `channel` may read from now on.
   */
  event: 'file_ready' | 'file_blocked' | 'file_shared';
  file: FileRecord & {
    /** The openid of its owner. */
    owner: string;
    /** The channel that it is shared with. */
    channel?: string;
  };
  /** The channel in which this came: the user's own, or the one that the file is shared with. */
  channel: string;
}

export type FileListener = (notice: FileNotice) => void;

/** Finds notices of files among what is published. */
export class Notices {
  private listeners: FileListener[] = [];

  /** Returns what takes the listener away again. */
  add(listener: FileListener): () => void {
    this.listeners = this.listeners.concat(listener);
    return () => {
      this.listeners = this.listeners.filter((l) => l !== listener);
    };
  }

  /** What a client published has its info with it, and is not believed. */
  hear({ channel, data, info }: PublicationContext): void {
    if (info || !data || data.type !== 'minigate.file') return;
    for (const listener of this.listeners) later(listener, { event: data.event, file: data.file, channel });
  }
}
