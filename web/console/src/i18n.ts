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
  overview: ['Overview', '概览'],
  openid: ['openid', 'openid'],
  lookUp: ['Look up', '查询'],
  sessions: ['Sessions', '会话'],
  noSessions: ['This user is not logged in anywhere.', '该用户当前没有登录会话。'],
  device: ['Device', '设备'],
  app: ['Mini-program', '小程序'],
  created: ['Logged in', '登录时间'],
  lastSeen: ['Last seen', '最近活跃'],
  expires: ['Expires', '过期时间'],
  revoke: ['Log out', '下线'],
  revokeAll: ['Log out everywhere', '全部下线'],
  confirmRevoke: ['End this session? The phone may log in again.', '确定结束该会话？用户仍可重新登录。'],
  confirmRevokeAll: ['End all sessions of this user? They may log in again.', '确定结束该用户的全部会话？用户仍可重新登录。'],
  block: ['Block', '封禁'],
  blockHint: ['Ends all sessions and refuses logins.', '结束全部会话，并拒绝再次登录。'],
  unblock: ['Unblock', '解除封禁'],
  blocked: ['blocked', '已封禁'],
  notBlocked: ['may log in', '可登录'],
  blockedSince: ['since', '自'],
  blockedUntil: ['until', '至'],
  reason: ['Reason, shown to the user', '原因（用户可见）'],
  howLong: ['How long', '时长'],
  hour: ['1 hour', '1 小时'],
  day: ['1 day', '1 天'],
  week: ['7 days', '7 天'],
  month: ['30 days', '30 天'],
  forever: ['until unblocked', '直到解除'],
  alerts: ['Alerts', '告警'],
  alertsHint: ['from WeChat, to this node', '来自微信，本节点'],
  lastTime: ['last', '最近'],
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
