// Parses every script, and bundles what runs in a page.
import { execFileSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { uniBundle } from './lib/uni.mjs';

for (const dir of ['.', 'lib', 'scenarios']) {
  for (const name of readdirSync(dir)) {
    if (name.endsWith('.mjs')) execFileSync(process.execPath, ['--check', `${dir}/${name}`], { stdio: 'inherit' });
  }
}
console.log(`uni-h5 bundles to ${Math.round((await uniBundle()).length / 1024)} KiB`);
