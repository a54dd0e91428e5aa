/** Puts the landing script where initrd images are made from. @module */
import { chmodSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { undo } from '../../errors.js';
import type { LandingPlan } from './plan.js';
import { LandingError } from './problem.js';
import { filesToInstall, type ImageKind, type LandingFile } from './script.js';

/** The files of a plan. Images that are made once they are there have the script. */
export function landingFiles(plan: LandingPlan, kind: ImageKind): LandingFile[] {
  return filesToInstall(kind, plan.script);
}

/**
 * Writes the files of a plan below `root`, each of them whole or not at all; those of an earlier plan are replaced.
 *
 * @throws LandingError when the plan has problems, and nothing is written; an error of `node:fs` when a file cannot be
 * written
 */
export function installLanding(plan: LandingPlan, kind: ImageKind, root = '/'): void {
  if (plan.problems.length > 0) throw new LandingError(plan.problems);
  for (const { path, mode, text } of landingFiles(plan, kind)) {
    const target = join(root, path);
    // Neither initramfs-tools nor dracut takes a file with such a name for one of theirs.
    const temporary = `${target}.dpkg-new`;
    mkdirSync(dirname(target), { recursive: true });
    try {
      writeFileSync(temporary, text);
      chmodSync(temporary, mode);
      renameSync(temporary, target);
    } catch (error) {
      undo(error, [() => rmSync(temporary, { force: true })]);
    }
  }
}
