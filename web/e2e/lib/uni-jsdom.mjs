// uni-h5 inside jsdom, on a page of the gateway's own origin.
import { JSDOM, VirtualConsole } from 'jsdom';
import { uniBundle, uniConfig } from './uni.mjs';

/**
 * Boots a page; gives { e2e, readFile, bufferOf } where readFile reads what
 * downloadFile stored, and bufferOf makes an ArrayBuffer of the page's realm.
 */
export async function uniPage(baseUrl) {
  const script = await uniBundle();
  const { window } = new JSDOM('<!doctype html><div id="app"></div>', {
    url: `${baseUrl}/`,
    runScripts: 'outside-only',
    pretendToBeVisual: true,
    virtualConsole: new VirtualConsole(), // its reports on styles say nothing about us
  });
  const files = new Map();
  window.matchMedia = () => ({ matches: false, addListener() {}, removeListener() {}, addEventListener() {} });
  window.CSS = { supports: () => false };
  window.URL.createObjectURL = (blob) => {
    const path = `blob:e2e/${files.size}`;
    files.set(path, blob);
    return path;
  };
  window.URL.revokeObjectURL = () => {};
  window.eval(uniConfig);
  window.eval(script);
  const bufferOf = window.eval('(bytes) => Uint8Array.from(bytes).buffer');
  return { e2e: window.e2e, readFile: (path) => read(window, files.get(path)), bufferOf };
}

function read(window, blob) {
  return new Promise((resolve, reject) => {
    const reader = new window.FileReader();
    reader.onload = () => resolve(new Uint8Array(reader.result));
    reader.onerror = () => reject(reader.error);
    reader.readAsArrayBuffer(blob);
  });
}
