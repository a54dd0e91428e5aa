/**
 * Live update: tools/testing/selftests/liveupdate. The four programs whose second half runs after a kexec keep what
 * they are to find there in sessions, so that one kexec does for all of them.
 *
 * The selftests write to a memfd and read it back, for which they move its file offset; here that is a write and a
 * read at offsets.
 *
 * @module
 */
import { EBUSY, EEXIST, EINVAL, ENOENT } from '../../../bindings/uapi/errno.js';
import type { Case, ConformanceHost } from '../support/case.js';
import { iommufdProfiles } from '../support/errno-cases.js';
import { equal, refused, succeeds } from '../support/expect.js';
import { LiveUpdate, openLiveUpdate, type Session } from '../support/liveupdate.js';

const O_RDWR = 2;
const MANY_SESSIONS = 2000;
const MANY_FILES = 500;
/** The bytes of the longest name, without its NUL. */
const LONGEST_NAME = 63;

function memfd({ kernel }: ConformanceHost, content: string): number {
  const fd = succeeds(kernel.memfdCreate('test-memfd', 0), 'memfd_create');
  const bytes = Buffer.from(content);
  if (bytes.length > 0) equal(kernel.pwrite(fd, bytes, 0), bytes.length, 'write');
  return fd;
}

function holdsText({ kernel }: ConformanceHost, fd: number, expected: string): void {
  const buffer = Buffer.alloc(64);
  const count = succeeds(kernel.pread(fd, buffer, 0), 'read');
  equal(buffer.subarray(0, count).toString(), expected, 'what the memfd holds');
}

const closeAll = ({ kernel }: ConformanceHost, fds: readonly number[]): void => {
  for (const fd of fds) equal(kernel.close(fd), 0, 'close');
};

const tests: Readonly<Record<string, (live: LiveUpdate, host: ConformanceHost) => void>> = {
  exclusive_open: (_live, host) => refused(openLiveUpdate(host), EBUSY, 'open once more'),

  create_duplicate_session: live => {
    const session = live.create('duplicate-session-test');
    refused(live.tryCreate('duplicate-session-test'), EEXIST, 'the same name');
    session.close();
  },

  create_distinct_sessions: live => {
    const sessions = [live.create('distinct-session-1'), live.create('distinct-session-2')];
    for (const session of sessions) session.close();
  },

  preserve_memfd: (live, host) => {
    const session = live.create('preserve-memfd-test');
    const fd = memfd(host, 'hello liveupdate');
    session.preserve(fd, 0x1234n);
    session.close();
    holdsText(host, fd, 'hello liveupdate');
    closeAll(host, [fd]);
  },

  preserve_multiple_memfds: (live, host) => {
    const session = live.create('preserve-multi-memfd-test');
    const first = memfd(host, 'data for memfd one');
    const second = memfd(host, 'data for memfd two');
    session.preserve(first, 0xaaaan);
    session.preserve(second, 0xbbbbn);
    holdsText(host, first, 'data for memfd one');
    holdsText(host, second, 'data for memfd two');
    closeAll(host, [first, second]);
    session.close();
  },

  preserve_complex_scenario: (live, host) => {
    const sessions = [live.create('complex-session-1'), live.create('complex-session-2')] as const;
    const files = ['data for session 1', '', 'data for session 2', ''].map(text => ({
      text,
      fd: memfd(host, text),
    }));
    for (const [at, { fd }] of files.entries()) {
      const session = at < 2 ? sessions[0] : sessions[1];
      session.preserve(fd, BigInt(0x1111 * (at + 1)));
    }
    for (const { fd, text } of files) holdsText(host, fd, text);
    closeAll(
      host,
      files.map(({ fd }) => fd),
    );
    for (const session of sessions) session.close();
  },

  preserve_unsupported_fd: (live, host) => {
    const session = live.create('unsupported-fd-test');
    // /dev/null in the selftest; any device does, and this one is on the simulated host too.
    const fd = succeeds(host.kernel.open('/dev/iommu', O_RDWR), 'open');
    refused(session.tryPreserve(fd, 0xdeadn), ENOENT, 'a device');
    closeAll(host, [fd]);
    session.close();
  },

  prevent_double_preservation: (live, host) => {
    const first = live.create('double-preserve-session-1');
    const second = live.create('double-preserve-session-2');
    const fd = memfd(host, '');
    first.preserve(fd, 0x1111n);
    refused(second.tryPreserve(fd, 0x2222n), EBUSY, 'in another session');
    refused(first.tryPreserve(fd, 0x3333n), EBUSY, 'in the same session');
    closeAll(host, [fd]);
    first.close();
    second.close();
  },

  create_session_no_null_termination: live => {
    refused(live.tryCreate(new Uint8Array(LONGEST_NAME + 1).fill('X'.charCodeAt(0))), EINVAL, '64 letters');
  },

  create_session_empty_name: live => refused(live.tryCreate(''), EINVAL, 'no letters'),

  get_session_name: live => {
    const session = live.create('get-name-test-session');
    equal(session.name(), 'get-name-test-session', 'name');
    session.close();
  },

  get_session_name_max_length: live => {
    const longest = 'A'.repeat(LONGEST_NAME);
    const session = live.create(longest);
    equal(session.name(), longest, 'name');
    session.close();
  },

  preserve_many_sessions: live => {
    const sessions: Session[] = [];
    for (let i = 0; i < MANY_SESSIONS; i++) sessions.push(live.create(`many-session-${i}`));
    for (const session of sessions) session.close();
  },

  preserve_many_files: (live, host) => {
    const session = live.create('many-files-test');
    const fds = Array.from({ length: MANY_FILES }, () => memfd(host, ''));
    for (const [token, fd] of fds.entries()) session.preserve(fd, BigInt(token));
    closeAll(host, fds);
    session.close();
  },
};

/** A program in two halves. Sessions that the first leaves open are what the kexec carries over. */
interface TwoStages {
  readonly name: string;
  /** Its own, in which it keeps that the first half has run. */
  readonly state: { readonly session: string; readonly token: bigint };
  before(live: LiveUpdate): void;
  after(live: LiveUpdate): void;
}

const multiSession = {
  empty: ['multi-test-empty-1', 'multi-test-empty-2'],
  files: [
    { session: 'multi-test-files-1', texts: [[0x1001n, 'Data for session files 1']] },
    {
      session: 'multi-test-files-2',
      texts: [
        [0x2002n, 'First file for session files 2'],
        [0x3003n, 'Second file for session files 2'],
      ],
    },
  ],
} as const;

const programs: readonly TwoStages[] = [
  {
    name: 'luo_kexec_simple',
    state: { session: 'kexec_simple_state', token: 999n },
    before: live => live.create('test-session').preserveText(0x1an, 'hello kexec world'),
    after: live => {
      const session = live.retrieve('test-session');
      equal(session.retrieveText(0x1an), 'hello kexec world', 'the memfd');
      session.finish();
    },
  },
  {
    name: 'luo_multi_session',
    state: { session: 'kexec_multi_state', token: 998n },
    before: live => {
      for (const name of multiSession.empty) live.create(name);
      for (const { session, texts } of multiSession.files) {
        const created = live.create(session);
        for (const [token, text] of texts) created.preserveText(token, text);
      }
    },
    after: live => {
      const empty = multiSession.empty.map(name => live.retrieve(name));
      const files = multiSession.files.map(({ session, texts }) => ({
        session: live.retrieve(session),
        texts,
      }));
      for (const { session, texts } of files) {
        for (const [token, text] of texts) equal(session.retrieveText(token), text, 'a memfd');
      }
      for (const session of [...empty, ...files.map(file => file.session)]) session.finish();
    },
  },
  {
    name: 'luo_stress_files',
    state: { session: 'kexec_many_files_state', token: 9999n },
    before: live => {
      const session = live.create('many_files_session');
      for (let i = 0; i < MANY_FILES; i++) session.preserveText(BigInt(i), `file-data-${i}`);
    },
    after: live => {
      const session = live.retrieve('many_files_session');
      for (let i = 0; i < MANY_FILES; i++)
        equal(session.retrieveText(BigInt(i)), `file-data-${i}`, `memfd ${i}`);
      session.finish();
    },
  },
  {
    name: 'luo_stress_sessions',
    state: { session: 'kexec_many_state', token: 999n },
    before: live => {
      for (let i = 0; i < MANY_SESSIONS; i++) live.create(`many-test-${i}`);
    },
    after: live => {
      for (let i = 0; i < MANY_SESSIONS; i++) live.retrieve(`many-test-${i}`).finish();
    },
  },
];

/** What stands in the state session for the half to come. */
const NEXT_STAGE = '2';

export const cases: readonly Case[] = [
  {
    source: 'liveupdate/liveupdate.c',
    fixture: 'liveupdate_device',
    name: 'basic_open_close',
    profiles: iommufdProfiles,
    run: (_t, host) => new LiveUpdate(host)[Symbol.dispose](),
  },
  ...Object.entries(tests).map(
    ([name, test]): Case => ({
      source: 'liveupdate/liveupdate.c',
      fixture: 'liveupdate_device',
      name,
      profiles: iommufdProfiles,
      run: (_t, host) => {
        using live = new LiveUpdate(host);
        test(live, host);
      },
    }),
  ),
  ...programs.map(
    ({ name, state, before, after }): Case => ({
      source: `liveupdate/${name}.c`,
      fixture: 'kexec',
      name,
      profiles: iommufdProfiles,
      run: (_t, host) => {
        using live = new LiveUpdate(host);
        refused(live.tryRetrieve(state.session), ENOENT, 'the state, before the kexec');
        live.create(state.session).preserveText(state.token, NEXT_STAGE);
        before(live);
      },
      afterKexec: (_t, host) => {
        using live = new LiveUpdate(host);
        const session = live.retrieve(state.session);
        equal(session.retrieveText(state.token), NEXT_STAGE, 'the stage');
        after(live);
        session.finish();
      },
    }),
  ),
];
