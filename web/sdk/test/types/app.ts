// Compiled, never run: how an app in TypeScript sees the library, with the
// official types and without a browser's.
import { createClient, MinigateError } from '../../dist/index.js';
import type { DownloadedPart, FileNotice, FileRecord, Session, WxApi } from '../../dist/index.js';

const official: WxApi = wx;
const client = createClient({ baseUrl: 'https://gate.example.com', appid: 'wx1', wx: official });

App({
  onLaunch() {
    client.login({ success: (session: Session) => console.log(session.user.openid) });
  },
  onShow: () => client.onShow(),
});

interface Order {
  id: number;
}

async function useAll(): Promise<void> {
  const { data } = await client.request<Order[]>({ url: '/api/orders', enableHttp2: true });
  const first: number = data[0].id;
  const task = client.request<Order>({
    url: '/api/orders',
    method: 'PATCH',
    data: { first },
    success: (result) => console.log(result.data.id, result.header),
    fail: (error: MinigateError) => console.log(error.code, error.statusCode, error.requestId, error.errMsg),
  });
  task.abort();

  const upload = client.upload({ filePath: 'wxfile://a', onProgress: ({ progress }) => console.log(progress) });
  upload.onProgressUpdate(({ sent, total }) => console.log(sent / total));
  const file: FileRecord = (await upload).data;
  const { tempFilePath } = await client.download({ url: file.url });
  console.log(tempFilePath);
  client.upload({ filePath: 'wxfile://film', size: 1e9, type: 'video/mp4', mode: 'parts', parallel: 3 }).abort();
  await client.download({
    url: file.url,
    partSize: 1 << 20,
    onPart: async ({ n, tempFilePath, offset, size, total }: DownloadedPart) => console.log(n, tempFilePath, offset + size < total),
  });
  await client.download({ url: file.url, filePath: `${wx.env.USER_DATA_PATH}/film`, join: true });
  // @ts-expect-error: there is no such mode
  client.upload({ filePath: 'wxfile://a', mode: 'stream' });

  const { data: run } = await client.openData<{ stepInfoList: object[] }>({ fetch: () => wx.getWeRunData() });
  console.log(run!.stepInfoList.length);
  await client.openData(await wx.getUserProfile({ desc: 'for your page' }));
  const src: string = await client.fileUrl(file);
  const { ticket, expiresIn } = await client.ticket(`upload:${file.id}`);
  console.log(src, ticket, expiresIn / 60);

  const socket = client.socket({ probeTimeout: 2000, debug: true });
  socket.on('message', (ctx) => console.log(ctx.data));
  socket.newSubscription('room:1').on('publication', (ctx) => console.log(ctx.data, ctx.info)).subscribe();

  const stop: () => void = client.onFile(({ event, file, channel }: FileNotice) => {
    if (event === 'file_ready') console.log(file.id, file.owner, file.channel || channel);
  });
  stop();

  // @ts-expect-error: there is no such scope
  client.ticket('everything');
  // @ts-expect-error: a call needs a url
  client.request({ method: 'GET' });
  // @ts-expect-error: the connection is the client's
  client.socket({ websocket: null });
}

Page({
  withPhone({ detail }: WechatMiniprogram.ButtonGetPhoneNumber) {
    client.phone(detail).then(({ phoneNumber, jws }) => console.log(phoneNumber, jws));
  },
});

useAll().catch((error) => console.log(error));
