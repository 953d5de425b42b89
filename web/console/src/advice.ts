import type { Language } from './i18n.ts';
import type { Alert } from './stream.ts';

// What to do about an errcode, {ip} being our address. The server's own words,
// which are English, stand in for what is not here.
const advice: Record<number, Record<Language, string>> = {
  40001: {
    en: 'WeChat does not accept the AppSecret: compare it with the one in the WeChat admin console.',
    zh: '微信不接受 AppSecret：请与微信公众平台上的核对。',
  },
  40013: { en: 'The AppID is wrong.', zh: 'AppID 有误。' },
  40125: {
    en: 'The AppSecret is wrong or was reset: set the current one.',
    zh: 'AppSecret 有误或已被重置：请配置当前的 AppSecret。',
  },
  40164: {
    en: 'WeChat does not accept calls from our IP address: add {ip} to the IP allow-list in the WeChat admin console.',
    zh: '微信不接受来自本机 IP 的调用：请在微信公众平台的 IP 白名单中加入 {ip}。',
  },
  48001: { en: 'The mini-program may not use this API.', zh: '该小程序没有此接口的权限。' },
  50004: { en: 'The account may not use this API.', zh: '该账号被禁止使用此接口。' },
  50007: { en: 'The account is frozen.', zh: '该账号已被冻结。' },
  89503: {
    en: "Our IP address waits for the approval of the mini-program's administrator.",
    zh: '本机 IP 的调用正等待小程序管理员确认。',
  },
  89506: {
    en: 'The administrator refused our IP address twice: it may ask again after 24 hours.',
    zh: '管理员已两次拒绝本机 IP，24 小时后方可再次申请。',
  },
  89507: {
    en: 'The administrator refused our IP address: it may ask again after an hour.',
    zh: '管理员已拒绝本机 IP，1 小时后方可再次申请。',
  },
};

// plain says in words of the page's language what is wrong.
export function plain(a: Pick<Alert, 'code' | 'cause' | 'ip'>, language: Language): string {
  const words = advice[a.code]?.[language] ?? a.cause;
  return words.replace('{ip}', a.ip ?? (language === 'zh' ? '本机的公网地址' : 'our public address'));
}
