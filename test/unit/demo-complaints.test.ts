// What the demonstration says when something is not as it must be, and how it ends when it is called off.
import t from 'tap';
import { complaints, type DemoReport } from '../../src/cli/demo/complaints.js';
import { showCrashes } from '../../src/cli/demo/crash.js';
import { HANDOFFS, showHandOffs } from '../../src/cli/demo/hand-off.js';
import { keepComplaints, worstOutcome } from '../../src/cli/demo/keep-report.js';
import { joinUpdates, showLiveUpdates } from '../../src/cli/demo/live-update.js';
import type { Narrator } from '../../src/cli/demo/mode.js';
import { countMoved } from '../../src/cli/demo/physical-pages.js';
import { NVME, Stage } from '../../src/cli/demo/stage.js';

const none = { lost: 0, repeated: 0, resets: 0, adminCommands: 0, bytesWrong: 0, leaked: [] } as const;
const mode = {
  mode: 'vtd',
  controller: { model: 'm', serial: 's', version: '1.4.0' },
  namespaces: [],
  ios: 2,
  bytesWritten: 512,
  bytesVerified: 512,
  bytesWrong: 0,
  faultsCaught: 1,
  wildWrite: { address: 1n, length: 1, stopped: true, text: '' },
  leaked: [],
  seconds: 1,
} as const;
const succession = {
  mode: 'vtd',
  ...{ outcome: 'kept-running', ios: 100, inherited: 32, gapMs: { p50: 1, max: 2 } },
  ...none,
} as const;
const update = {
  mode: 'vtd',
  ...{ kexecs: 3, outcome: 'kept-running', reason: undefined, ios: 100, bytesVerified: 4096, pagesMoved: 0 },
  ...none,
} as const;
const good: DemoReport = {
  modes: [mode],
  handoff: { ...succession, count: HANDOFFS },
  crash: { ...succession, count: 5, toldTwice: 7 },
  liveupdate: joinUpdates([update, { ...update, mode: 'noiommu' }]),
};

t.test('complaints', async t => {
  t.strictSame(complaints(good), []);
  const handoff = (change: Partial<DemoReport['handoff']>) => ({ handoff: { ...good.handoff, ...change } });
  const crash = (change: Partial<DemoReport['crash']>) => ({ crash: { ...good.crash, ...change } });
  const liveupdate = (change: Partial<DemoReport['liveupdate']['modes'][number]>) => ({
    liveupdate: joinUpdates([update, { ...update, mode: 'noiommu', ...change }]),
  });
  const cases: [Partial<DemoReport>, ...string[]][] = [
    [{ modes: [{ ...mode, bytesWrong: 3 }] }, 'vtd: 3 bytes read back differ from what was written'],
    [handoff({ count: 19 }), '19 hand-offs, not 20'],
    [handoff({ lost: 1 }), '1 commands were lost in hand-offs'],
    [handoff({ repeated: 2 }), '2 commands were repeated in hand-offs'],
    [handoff({ resets: 1 }), '1 resets in hand-offs'],
    [handoff({ adminCommands: 4 }), '4 admin commands in hand-offs'],
    [handoff({ outcome: 'cold' }), 'hand-offs: cold'],
    [handoff({ inherited: 0 }), 'hand-offs: nothing was in flight'],
    [handoff({ bytesWrong: 8 }), '8 bytes read back differ from what was written, in hand-offs'],
    [handoff({ leaked: ['x'] }), 'hand-offs: left behind: x'],
    [crash({ count: 4 }), '4 kills, not 5'],
    [crash({ lost: 1 }), '1 commands were lost in crashes'],
    [crash({ repeated: 1 }), '1 commands were repeated in crashes'],
    [crash({ resets: 1 }), '1 resets in crashes'],
    [crash({ adminCommands: 1 }), '1 admin commands in crashes'],
    [crash({ outcome: 're-initialised' }), 'crashes: re-initialised'],
    [crash({ inherited: 0 }), 'crashes: nothing was in flight'],
    [crash({ bytesWrong: 8 }), '8 bytes read back differ from what was written, in crashes'],
    [crash({ leaked: ['x'] }), 'crashes: left behind: x'],
    [liveupdate({ kexecs: 2 }), '5 kexecs, not 6'],
    [
      liveupdate({ outcome: 'cold', reason: 'it is Monday' }),
      'after a live update: cold',
      'live updates, noiommu: not kept running, since it is Monday',
    ],
    [liveupdate({ adminCommands: 1 }), '1 admin commands in live updates'],
    [liveupdate({ pagesMoved: 1 }), '1 pages of DMA memory have moved'],
    [liveupdate({ lost: 1 }), '1 commands were lost in live updates, noiommu'],
    [liveupdate({ repeated: 1 }), '1 commands were repeated in live updates, noiommu'],
    [liveupdate({ resets: 1 }), '1 resets in live updates, noiommu'],
    [
      liveupdate({ bytesWrong: 9 }),
      '9 bytes read back differ from what was written, in live updates, noiommu',
    ],
    [liveupdate({ leaked: ['x'] }), 'live updates, noiommu: left behind: x'],
  ];
  for (const [change, ...expected] of cases) {
    t.strictSame(complaints({ ...good, ...change }), expected, expected.join('; '));
  }
  const nothing = { ...good.liveupdate, bytesVerified: 0 };
  t.strictSame(keepComplaints({ ...good, liveupdate: nothing }, { handoffs: 20, kexecs: 6 }), [
    'nothing was read back after the live updates',
  ]);
});

t.test('the worst outcome', async t => {
  t.equal(worstOutcome(['kept-running', 're-initialised', 'cold']), 'cold');
  t.equal(worstOutcome(['kept-running', 're-initialised']), 're-initialised');
  t.equal(worstOutcome(['kept-running', 'unknown']), 'unknown');
  t.equal(worstOutcome(['kept-running']), 'kept-running');
});

t.test('pages that moved, and those that are nowhere', async t => {
  const before = new Map([[1n, [10, 11, undefined]]]);
  t.equal(countMoved(before, new Map([[1n, [10, 11, 12]]])), 1);
  t.equal(countMoved(before, new Map([[1n, [10, 12, undefined]]])), 2);
  t.equal(countMoved(before, new Map()), 3);
});

/** Calls `act` when a step of that name is told. */
function onStep(wanted: string, act: () => void): Narrator {
  return {
    step: name => {
      if (name === wanted) act();
    },
    picture: () => undefined,
    progress: () => undefined,
    width: 80,
  };
}

const never = new AbortController().signal;

t.test('a controller that completes nothing any more', async t => {
  using stage = new Stage('vtd');
  const stuck = onStep('controller', () => stage.model.throttle(1e-6));
  const report = await showHandOffs(stage, stuck, never);
  t.ok(report.lost > 0 && report.lost <= 32, `${report.lost} lost`);
  t.equal(report.repeated, 0);
  t.ok(report.count < HANDOFFS);
  t.ok(report.leaked.length > 0, 'it cannot be closed');
  t.match(complaints({ ...good, handoff: report }).join('; '), /\d+ commands were lost in hand-offs/);
});

t.test('a controller that executes one command more than it was given', async t => {
  using stage = new Stage('noiommu');
  const report = await showLiveUpdates(
    stage,
    onStep('kernel 2', () => stage.namespace.counters.reads++),
    never,
  );
  t.match(report, { kexecs: 3, outcome: 'kept-running', lost: 0, repeated: 1 });
});

for (const show of [showHandOffs, showCrashes, showLiveUpdates]) {
  t.test(`${show.name} is called off`, async t => {
    using stage = new Stage('vtd');
    const abort = new AbortController();
    const reason = new Error('enough');
    const narrator = onStep(show === showLiveUpdates ? 'kernel 2' : 'controller', () => abort.abort(reason));
    const shown: Promise<unknown> = show(stage, narrator, abort.signal);
    await t.rejects(shown, { cause: reason });
    const { ioCommands } = stage.seen;
    stage[Symbol.dispose]();
    t.strictSame(stage.host.leftovers(), [`${NVME} is with vfio-pci`], 'nobody has it any more');
    await new Promise(resolve => setTimeout(resolve, 50));
    t.ok(stage.seen.ioCommands <= ioCommands + 32, 'nor does anybody go on');
  });
}
