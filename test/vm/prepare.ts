// `node dist/test/vm/prepare.js [--update]`: everything a kernel-tier run needs, once.
import { parseArgs } from 'node:util';
import { ArchiveUnreachable } from './debian.js';
import { ensureKernels, kernel } from './kernel.js';
import { flavours } from './kernel-config.js';
import { firstStageQemu } from './newer-qemu.js';
import { elapsed, note } from './progress.js';
import { isMain } from './project.js';
import { ensureTools } from './tools.js';

export { kernel } from './kernel.js';
export { ensureTools } from './tools.js';

/** Installs what is missing and builds the kernels that are not cached. */
export const prepare = async (options: { readonly update?: boolean } = {}): Promise<void> => {
  // Kernels first: where one is to be built, the tools for both come in one installation.
  await ensureKernels(flavours, options);
  await ensureTools();
  await firstStageQemu().catch((error: Error) => {
    if (!(error instanceof ArchiveUnreachable)) throw error;
    note(`without the QEMU for the profile vtd-first-stage, whose tests will fail: ${error.message}`);
  });
};

if (isMain(import.meta.url)) {
  const start = Date.now();
  const { values } = parseArgs({ options: { update: { type: 'boolean', default: false } } });
  try {
    await prepare(values);
    for (const flavour of flavours) note(`${flavour} kernel: ${(await kernel(flavour)).bzImage}`);
    note(`ready after ${elapsed(start)}`);
  } catch (error) {
    note(`prepare: ${error instanceof Error ? error.message : String(error)}`);
    process.exitCode = 1;
  }
}
