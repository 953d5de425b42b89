// uni-app's H5 runtime: the wx calls over XMLHttpRequest and WebSocket.
import { build } from 'esbuild';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
const require = createRequire(import.meta.url);
const calls = 'request, connectSocket, uploadFile, downloadFile, getStorageSync, setStorageSync, removeStorageSync';
const features =
  'LEFTWINDOW LONGPRESS NAVIGATIONBAR NAVIGATIONBAR_BUTTONS NAVIGATIONBAR_SEARCHINPUT NAVIGATIONBAR_TRANSPARENT PAGES ' +
  'PULL_DOWN_REFRESH RESPONSIVE RIGHTWINDOW ROUTER_MODE TABBAR TABBAR_MIDBUTTON TOPWINDOW UNI_CLOUD WXS WX I18N_EN ' +
  'I18N_ES I18N_FR I18N_LOCALE I18N_ZH_HANS I18N_ZH_HANT';

/** One script that sets globalThis.e2e = { wx, fourCalls }. */
export async function uniBundle() {
  const dist = join(dirname(require.resolve('@dcloudio/uni-h5/package.json')), 'dist');
  const result = await build({
    stdin: {
      contents: `
        import { UniServiceJSBridge, ${calls} } from ${JSON.stringify(join(dist, 'uni-h5.es.js'))};
        import { fourCalls } from './four-calls.mjs';
        globalThis.UniServiceJSBridge = UniServiceJSBridge;
        globalThis.e2e = { wx: { ${calls} }, fourCalls };`,
      resolveDir: here,
    },
    bundle: true,
    write: false,
    format: 'iife',
    platform: 'browser',
    logLevel: 'error',
    alias: { vue: '@dcloudio/uni-h5-vue' },
    define: {
      'process.env.NODE_ENV': '"production"',
      __DEV__: 'false',
      ...Object.fromEntries(features.split(' ').map((name) => [`__UNI_FEATURE_${name}__`, 'false'])),
    },
  });
  return result.outputFiles[0].text;
}

/** What a page sets before the script. */
export const uniConfig = `
  window.__uniConfig = {
    router: { base: '/' },
    networkTimeout: { request: 60000, connectSocket: 60000, uploadFile: 60000, downloadFile: 60000 },
  };
  window.__uniRoutes = [];`;
