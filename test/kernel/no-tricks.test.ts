/**
 * In noiommu mode physical addresses come from the kernel's own request and pages are pinned by the kernel: no mlock,
 * no /proc/self/pagemap, no /dev/mem. Shown by a trace of every system call of a whole run.
 */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { nvmeA } from '../vm/topology.js';

const program = fileURLToPath(new URL('./support/write-once.js', import.meta.url));

t.test('a run under strace', t => {
  const file = '/tmp/strace.log';
  const result = spawnSync('strace', ['-f', '-o', file, process.execPath, program, nvmeA.address, 'true'], {
    encoding: 'utf8',
  });
  t.equal(result.status, 0, result.stderr || result.error?.message || 'the traced run ended well');
  t.match(result.stdout, /identical/);
  const calls = readFileSync(file, 'utf8').split('\n');
  t.comment(`${calls.length} system calls`);
  const has = (pattern: RegExp): string[] => calls.filter(line => pattern.test(line));
  t.ok(has(/noiommu-vfio\d/).length > 0, 'the trace is that of a noiommu device');
  // 0x3b95, as strace of that age shows a request that it has no name for.
  t.ok(
    has(/ioctl\(\d+, (_IOC\(_IOC_NONE, 0x3b, 0x95|0x3b95|IOMMU_IOAS_NOIOMMU_GET_PA)/).length > 0,
    'which asks the kernel for physical addresses',
  );
  t.strictSame(has(/\bmlock(2|all)?\(/), [], 'no mlock');
  t.strictSame(has(/pagemap/), [], 'no pagemap');
  t.strictSame(has(/\/dev\/(mem|kmem|port)\b/), [], 'no /dev/mem');
  t.end();
});
