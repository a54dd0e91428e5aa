// Whether KVM can be used. A /dev/kvm that opens says little: nested virtualisation may hang its guests, so
// only a guest that booted to power-off counts.
import { accessSync, constants, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { release } from 'node:os';
import { join } from 'node:path';
import { initrd } from './initrd.js';
import type { Kernel } from './kernel.js';
import { kill } from './process.js';
import { cacheRoot } from './project.js';
import { startQemu } from './qemu.js';
import { qemu } from './tools.js';

export type Accel = 'tcg' | 'kvm';

const limitMs = 6000;

const probe = (kernel: Kernel): Promise<boolean> => {
  const machine = ['-accel', 'kvm', '-cpu', 'host', '-machine', 'q35,kernel-irqchip=split', '-m', '256M'];
  const files = ['-kernel', kernel.bzImage, '-initrd', initrd(kernel)];
  const boot = [...files, '-append', 'console=ttyS0 panic=-1 iommufd.probe'];
  const vm = startQemu(machine, boot);
  const timer = setTimeout(() => kill(vm.child), limitMs);
  let output = '';
  vm.console.on('data', (chunk: Buffer) => {
    output += chunk.toString('latin1');
  });
  for (const stream of [vm.stdout, vm.stderr, vm.messages]) stream.resume();
  return new Promise(resolve => {
    const end = (code: number | null): void => {
      clearTimeout(timer);
      resolve(code === 0 && output.includes('iommufd: the guest runs'));
    };
    vm.child.once('error', () => end(null));
    vm.child.once('close', end);
  });
};

type Answer = { readonly key: string; readonly works: boolean };

const kvmWorks = async (kernel: Kernel): Promise<boolean> => {
  try {
    accessSync('/dev/kvm', constants.R_OK | constants.W_OK);
  } catch {
    return false;
  }
  const path = join(cacheRoot(), 'kvm.json');
  const [program = ''] = qemu().command;
  const key = [release(), program, statSync(program).mtimeMs].join(' ');
  try {
    const answer = JSON.parse(readFileSync(path, 'utf8')) as Answer;
    if (answer.key === key) return answer.works;
  } catch {
    // Not asked before.
  }
  const works = await probe(kernel);
  mkdirSync(cacheRoot(), { recursive: true });
  writeFileSync(path, `${JSON.stringify({ key, works } satisfies Answer)}\n`);
  return works;
};

/** KVM where it is known to work, software emulation elsewhere; `IOMMUFD_VM_ACCEL` overrides. */
export const accelerator = async (kernel: Kernel): Promise<Accel> => {
  const asked = process.env.IOMMUFD_VM_ACCEL;
  if (asked === 'tcg' || asked === 'kvm') return asked;
  if (asked !== undefined && asked !== '') throw new Error(`IOMMUFD_VM_ACCEL is tcg or kvm, not ${asked}`);
  return (await kvmWorks(kernel)) ? 'kvm' : 'tcg';
};
