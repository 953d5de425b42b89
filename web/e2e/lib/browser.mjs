// Headless Chromium on the console, for its scripts.
import { chromium } from 'playwright-core';

const { API_KEY, SCREENSHOT } = process.env;

export const launch = () =>
  chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
  });

export async function signIn(page, key = API_KEY) {
  await page.fill('input[name=key]', key);
  await page.click('button.primary');
}

export function shows(page, selector, text) {
  return page.waitForFunction(([s, v]) => document.querySelector(s)?.textContent === v, [selector, text]);
}

/** Changes the language to and fro: in Chinese the page says `chinese`. */
export async function picture(page, name, chinese) {
  const shoot = (language) => SCREENSHOT && page.screenshot({ path: SCREENSHOT.replace(/\.png$/, `-${name}-${language}.png`), fullPage: true });
  await shoot('en');
  await page.click('#language');
  await page.waitForFunction((words) => document.body.textContent.includes(words), chinese);
  await shoot('zh');
  await page.click('#language');
}
