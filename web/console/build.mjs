// Builds dist/, which package web embeds: one page, one script, one style
// sheet. Their names carry a hash, so that browsers may keep them for good.
import { build } from 'esbuild';
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import { fileURLToPath } from 'node:url';

process.chdir(dirname(fileURLToPath(import.meta.url)));
mkdirSync('dist', { recursive: true });
for (const name of readdirSync('dist')) if (name !== '.keep') rmSync(`dist/${name}`, { recursive: true });

const result = await build({
  entryPoints: ['src/main.tsx'],
  bundle: true,
  minify: true,
  format: 'esm',
  target: 'es2022',
  jsx: 'automatic',
  jsxImportSource: 'preact',
  entryNames: '[name]-[hash]',
  outdir: 'dist/assets',
  metafile: true,
});
const file = (suffix) => basename(Object.keys(result.metafile.outputs).find((name) => name.endsWith(suffix)));
const page = readFileSync('src/index.html', 'utf8');
writeFileSync('dist/index.html', page.replace('SCRIPT', file('.js')).replace('STYLE', file('.css')));
