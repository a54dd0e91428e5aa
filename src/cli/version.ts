/** The version of this package. @module */
import { readFileSync } from 'node:fs';

/** From `dist/src/cli`, where this file is when it runs. */
const MANIFEST = new URL('../../../package.json', import.meta.url);

export function version(): string {
  const manifest = JSON.parse(readFileSync(MANIFEST, 'utf8')) as { version: string };
  return manifest.version;
}
