// Every word of the page, in both languages.
export type Language = 'en' | 'zh';

const words = {
  subtitle: ['mini-program gateway', '小程序网关'],
  live: ['live', '实时'],
  offline: ['reconnecting…', '正在重连…'],
  ready: ['ready', '就绪'],
  degraded: ['degraded', '降级'],
  starting: ['starting', '启动中'],
  stopping: ['stopping', '停止中'],
  unready: ['not ready', '未就绪'],
  connections: ['Connections', '连接'],
  users: ['Users', '用户'],
  channels: ['Channels', '频道'],
  received: ['Messages in', '上行消息'],
  delivered: ['Messages out', '下行消息'],
  messages: ['Messages', '消息'],
  published: ['Publications', '发布'],
  requests: ['Requests', '请求'],
  logins: ['Logins', '登录'],
  upload: ['Upload', '上传'],
  download: ['Download', '下载'],
  transfers: ['Transfers', '传输'],
  active: ['running', '进行中'],
  memory: ['Memory', '内存'],
  perSecond: ['/s', '/秒'],
  dependencies: ['Dependencies', '依赖'],
  noDependencies: ['This node needs nothing else.', '此节点不依赖其他服务。'],
  up: ['up', '正常'],
  down: ['away', '不可用'],
  since: ['since', '自'],
  nodes: ['Nodes', '节点'],
  node: ['Node', '节点'],
  version: ['Version', '版本'],
  subscriptions: ['Subscriptions', '订阅'],
  newest: ['newest on this node', '本节点最新'],
  none: ['Nobody is connected.', '暂无连接。'],
  user: ['User', '用户'],
  address: ['Address', '地址'],
  client: ['Client', '客户端'],
  kick: ['Disconnect', '断开'],
  confirmKick: ['Disconnect this user for good?', '确定断开该用户？'],
  signIn: ['Sign in', '登录'],
  signOut: ['Sign out', '退出'],
  apiKey: ['API key', 'API 密钥'],
  signInHint: ['Use one of the keys in api.keys.', '使用 api.keys 中的任一密钥。'],
  wrongKey: ['No such key.', '密钥不存在。'],
  failed: ['That did not work: ', '操作未成功：'],
} satisfies Record<string, [string, string]>;

export type Word = keyof typeof words;

const stored = localStorage.getItem('minigate.language');
let language: Language = stored === 'en' || stored === 'zh' ? stored : navigator.language.startsWith('zh') ? 'zh' : 'en';
document.documentElement.lang = language === 'zh' ? 'zh-CN' : 'en';

export const current = () => language;

export function choose(next: Language) {
  language = next;
  localStorage.setItem('minigate.language', next);
  document.documentElement.lang = next === 'zh' ? 'zh-CN' : 'en';
}

export const t = (word: Word) => words[word][language === 'zh' ? 1 : 0];
