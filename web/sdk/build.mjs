// Builds dist/ (ES and CommonJS, centrifuge left to the app's bundler, types)
// and miniprogram_dist/ (one CommonJS file with everything in it, which the
// WeChat tools take as it is); the demo gets a copy of the latter.
import { build } from 'esbuild';
import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
process.chdir(here);
for (const dir of ['dist', 'miniprogram_dist']) rmSync(dir, { recursive: true, force: true });

const common = {
  entryPoints: ['src/index.ts'],
  bundle: true,
  target: 'es2018',
  platform: 'neutral',
  mainFields: ['module', 'main'],
  legalComments: 'none',
};
await Promise.all([
  build({ ...common, format: 'esm', outfile: 'dist/index.mjs', external: ['centrifuge'] }),
  build({ ...common, format: 'cjs', outfile: 'dist/index.cjs', external: ['centrifuge'] }),
  build({ ...common, format: 'cjs', outfile: 'miniprogram_dist/index.js', minify: true }),
]);

const require = createRequire(import.meta.url);
const tsc = join(dirname(require.resolve('typescript/package.json')), 'bin', 'tsc');
execFileSync(process.execPath, [tsc, '-p', 'tsconfig.json'], { stdio: 'inherit' });

mkdirSync('../demo/lib', { recursive: true });
cpSync('miniprogram_dist/index.js', '../demo/lib/minigate.js');
