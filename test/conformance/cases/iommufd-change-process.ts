/** FIXTURE(change_process): what is pinned is charged to another process. @module */
import { EINVAL } from '../../../bindings/uapi/errno.js';
import {
  IOMMU_IOAS_CHANGE_PROCESS,
  IOMMU_OPTION,
  IOMMU_OPTION_OP_SET,
  IOMMU_OPTION_RLIMIT_MODE,
} from '../../../bindings/uapi/iommufd.js';
import type { Case, ConformanceHost } from '../support/case.js';
import { equal, refused } from '../support/expect.js';
import { IommufdFixture } from '../support/iommufd.js';
import { fixtureCases } from '../support/iommufd-cases.js';
import { PAGE } from '../support/memory.js';
import { type AccountedMemory, accountedMemory } from '../support/status.js';

/** Who is charged for what is pinned: nobody (nothing was asked for), the user, or the process. */
type Accounting = 'none' | 'user' | 'mm';

class ChangeProcess extends IommufdFixture {
  readonly accounting: Accounting;
  readonly ioas: number;
  readonly #capability: Disposable;

  constructor(host: ConformanceHost, accounting: Accounting) {
    super(host);
    this.accounting = accounting;
    this.#capability = host.dropCapability('CAP_IPC_LOCK');
    if (accounting !== 'none') {
      const val64 = accounting === 'mm' ? 1n : 0n;
      const option = { option_id: IOMMU_OPTION_RLIMIT_MODE, op: IOMMU_OPTION_OP_SET, val64 };
      equal(this.call(IOMMU_OPTION, option).result, 0, 'set RLIMIT_MODE');
    }
    this.ioas = this.allocIoas();
    this.mockDevice(this.ioas);
  }

  override [Symbol.dispose](): void {
    this.#capability[Symbol.dispose]();
    super[Symbol.dispose]();
  }
}

export const cases: readonly Case[] = (['none', 'user', 'mm'] as const).flatMap(accounting =>
  fixtureCases(
    'change_process',
    host => new ChangeProcess(host, accounting),
    {
      async basic(f) {
        const change = (): number => f.call(IOMMU_IOAS_CHANGE_PROCESS, {}).result;
        const anonymous = f.map(f.ioas, f.buffer.address, PAGE);
        refused(change(), EINVAL, 'with memory that is no file');
        f.unmap(f.ioas, anonymous, PAGE);

        f.mapFile(f.ioas, f.file.fd, 0, PAGE);
        equal(change(), 0, 'to the same process');

        const kilobytes = PAGE / 1024;
        const charged = (whose: string, memory: AccountedMemory, pinned: number): void => {
          equal(memory.pinned, pinned, `VmPin of the ${whose}`);
          if (f.accounting === 'mm' || pinned === 0) equal(memory.locked, pinned, `VmLck of the ${whose}`);
        };
        const child = f.host.spawn('changeProcess', [f.fd]);
        try {
          charged('child before', (await child.heard()) as AccountedMemory, 0);
          charged('parent before', accountedMemory(f), kilobytes);
          child.tell('go');
          equal(await child.heard(), 0, 'to another process');
          charged('child after', (await child.heard()) as AccountedMemory, kilobytes);
          charged('parent after', accountedMemory(f), 0);
        } finally {
          await child.end();
        }
      },
    },
    `account_${accounting}`,
  ),
);
