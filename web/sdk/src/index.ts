export type { OpenData, OpenDataOptions, OpenedData, PhoneNumber, PhoneOptions, Scope, Ticket } from './auth.js';
export { createClient } from './client.js';
export type { AuthorizeOptions, Client, ClientOptions } from './client.js';
export { MinigateError } from './error.js';
export type {
  CallOptions,
  DownloadOptions,
  DownloadResult,
  FileRecord,
  RequestOptions,
  RequestResult,
  UploadOptions,
  UploadResult,
} from './http.js';
export type { FileListener, FileNotice } from './notices.js';
export type { DownloadedPart } from './ranges.js';
export type { Session } from './session.js';
export type { SocketOptions } from './socket.js';
export type { Progress, Task, TransferTask } from './task.js';
export type { Answer, WxApi, WxCallbacks, WxFailure, WxSocketTask, WxTask } from './wx.js';
