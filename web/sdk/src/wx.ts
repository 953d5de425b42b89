/**
 * The part of `wx` this library uses, written down structurally so that the
 * published types need no other package. The global `wx` of a mini-program
 * fits (checked against miniprogram-api-typings), and so does uni-app's `uni`.
 */
export interface WxApi {
  login(options: WxCallbacks<{ code: string }> & { timeout?: number }): unknown;
  request(options: any): WxTask;
  uploadFile(options: any): WxTask;
  downloadFile(options: any): WxTask;
  connectSocket(options: any): WxSocketTask;
  getStorageSync(key: string): any;
  setStorageSync(key: string, data: any): void;
  removeStorageSync(key: string): void;
  authorize?(options: any): unknown;
  getDeviceInfo?(): any;
  getSystemInfoSync?(): any;
  getFileSystemManager?(): any;
  env?: any;
  onAppShow?(listener: (...args: any[]) => void): void;
  onNetworkStatusChange?(listener: (result: any) => void): void;
}

/** What `fail` receives from wx itself. */
export interface WxFailure {
  errMsg: string;
  errno?: number;
}

/** The callbacks every wx call takes. */
export interface WxCallbacks<T> {
  success?(result: T): void;
  fail?(failure: any): void;
  complete?(result: any): void;
}

/** What request, uploadFile and downloadFile return. */
export interface WxTask {
  abort(): void;
  onProgressUpdate?(listener: (progress: any) => void): void;
  onHeadersReceived?(listener: (result: any) => void): void;
}

/** What connectSocket returns, before the socket is open. */
export interface WxSocketTask {
  send(options: any): void;
  close(options: any): void;
  onOpen(listener: (result: any) => void): void;
  onMessage(listener: (result: any) => void): void;
  onError(listener: (result: any) => void): void;
  onClose(listener: (result: any) => void): void;
}

/** What wx answers to a call that reached a server, whatever its status. */
export interface Answer {
  statusCode: number;
  data?: any;
  header?: Record<string, any>;
  cookies?: string[];
  tempFilePath?: string;
  filePath?: string;
  errMsg: string;
}
