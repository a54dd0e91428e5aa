// What the words on the command line are understood as.
import t from 'tap';
import { parseCommand } from '../../src/cli/arguments.js';
import { UsageError } from '../../src/cli/errors.js';
import { helpText } from '../../src/cli/help.js';
import { type TopicName, topics } from '../../src/cli/topics.js';

const parse = (line: string) => parseCommand(line.split(' ').filter(Boolean));
const target = { address: '0000:00:04.0', noiommu: false, force: false, timeout: undefined };

t.test('commands', async t => {
  t.strictSame(parse('devices'), { verb: 'devices', all: false, json: false });
  t.strictSame(parse('--json devices -a'), { verb: 'devices', all: true, json: true });
  t.strictSame(parse('--version'), { verb: 'version', json: false });
  t.strictSame(parse('nvme 0000:00:04.0 identify'), { verb: 'nvme identify', target, json: false });
  t.strictSame(parse('nvme 00:04.0 identify --noiommu --force --timeout 2 --json'), {
    verb: 'nvme identify',
    target: { ...target, noiommu: true, force: true, timeout: 2000 },
    json: true,
  });
  t.strictSame(parse('nvme 00:04.0 read'), {
    verb: 'nvme read',
    target,
    namespace: 1,
    lba: 0,
    json: false,
    length: {},
    output: '-',
  });
  t.match(parse('nvme 00:04.0 read -n 2 --lba 0x10 --bytes 1MiB -o file --json'), {
    namespace: 2,
    lba: 16,
    length: { bytes: 2 ** 20 },
    output: 'file',
    json: true,
  });
  t.match(parse('nvme 00:04.0 read --blocks 3'), { length: { blocks: 3 } });
  t.strictSame(parse('nvme 00:04.0 write --json'), {
    verb: 'nvme write',
    target,
    namespace: 1,
    lba: 0,
    json: true,
    input: '-',
    pad: false,
    yes: false,
  });
  const land = {
    verb: 'land',
    file: 'kept.state',
    release: undefined,
    root: '/',
    action: { kind: 'plan' },
    yes: false,
    dryRun: false,
    json: false,
  };
  t.strictSame(parse('land kept.state'), land);
  t.strictSame(parse('land kept.state --dracut --root /mnt --release 7.3.4 -y --dry-run --json'), {
    ...land,
    release: '7.3.4',
    root: '/mnt',
    action: { kind: 'install', make: 'dracut' },
    yes: true,
    dryRun: true,
    json: true,
  });
  t.match(parse('land - --initramfs-tools'), {
    file: '-',
    action: { kind: 'install', make: 'initramfs-tools' },
  });
  t.strictSame(parse('land kept.state --initrd in'), {
    ...land,
    action: { kind: 'add', input: 'in', output: '-' },
  });
  t.match(parse('land kept.state --initrd in -o out --json'), { action: { output: 'out' }, json: true });
  t.strictSame(parse('land kept.state --verify --command-line quiet'), {
    ...land,
    action: { kind: 'verify', commandLine: 'quiet' },
  });
  t.match(parse('land kept.state --verify --command-line quiet --initrd in'), {
    action: { commandLine: 'quiet', initrd: 'in' },
  });
  t.match(parse('nvme 00:04.0 write -i file --pad -y'), { input: 'file', pad: true, yes: true });
  t.strictSame(parse('state show file'), { verb: 'state show', file: 'file', json: false });
  t.strictSame(parse('--json state verify -'), { verb: 'state verify', file: '-', json: true });
  t.strictSame(parse('state diff a -'), { verb: 'state diff', files: ['a', '-'], json: false });
  t.strictSame(parse('state export file'), {
    verb: 'state export',
    file: 'file',
    format: 'dts',
    output: '-',
    json: false,
  });
  t.match(parse('state export - -f rfc -o out --json'), {
    file: '-',
    format: 'rfc',
    output: 'out',
    json: true,
  });
});

t.test('help is found from every place', async t => {
  const places: readonly [string, TopicName][] = [
    ['--help', ''],
    ['devices -h', 'devices'],
    ['nvme --help', 'nvme'],
    ['nvme 00:04.0 -h', 'nvme'],
    ['nvme read --help', 'nvme read'],
    ['nvme 00:04.0 write --yes --help', 'nvme write'],
    ['state --help', 'state'],
    ['state show -h', 'state show'],
    ['state diff a b --help', 'state diff'],
    ['state show diff --help', 'state show'],
  ];
  for (const [line, topic] of places) t.strictSame(parse(line), { verb: 'help', topic }, line);
});

t.test('every help has usage, options and an example, and fits a terminal', async t => {
  for (const name of Object.keys(topics) as TopicName[]) {
    const text = helpText(name);
    t.match(text, /^Usage: iommufd/, name);
    t.match(text, /\nOptions:\n {2}/, name);
    t.match(text, /\nExample:\n {2}iommufd /, name);
    t.ok(
      text.split('\n').every(line => line.length <= 90),
      name,
    );
    for (const option of topics[name].options) t.ok(text.includes(`--${option}`), `${name} --${option}`);
  }
});

t.test('wrong usage', async t => {
  const wrong: readonly [string, RegExp, string | undefined][] = [
    ['', /no command/, ''],
    ['frobnicate', /no command "frobnicate"/, ''],
    ['frobnicate --help', /no command "frobnicate"/, ''],
    ['--frob', /unknown option '--frob'/, ''],
    ['devices --frob', /unknown option '--frob'/, 'devices'],
    ['devices --lba 5', /no option --lba/, 'devices'],
    ['devices x', /"x" is one word too many/, 'devices'],
    ['land', /the file with the saved state is missing/, 'land'],
    ['land a b', /"b" is one word too many/, 'land'],
    ['land a --lba 1', /"land" has no option --lba/, 'land'],
    ['land a --initramfs-tools --dracut', /exclude each other/, 'land'],
    ['land a --verify --dracut', /exclude each other/, 'land'],
    ['land a --verify', /--verify needs --command-line/, 'land'],
    ['land a --command-line x', /--command-line goes with --verify/, 'land'],
    ['land a --output x', /--output goes with --initrd/, 'land'],
    ['land a --verify --command-line x --initrd y --output z', /--output goes with --initrd/, 'land'],
    ['land a --dracut --initrd x', /--dracut installs a script, and --initrd adds it/, 'land'],
    ['land a --initrd=', /must name files/, 'land'],
    ['land a --initrd x --output=', /must name files/, 'land'],
    ['land a --root=', /--root must name a file/, 'land'],
    ['land a --initrd x --json', /--json needs --output FILE/, 'land'],
    ['nvme', /address .* missing/, 'nvme'],
    ['nvme 4 identify', /"4" is not a PCI address/, 'nvme'],
    ['nvme 00:04.0', /identify, read, write/, 'nvme'],
    ['nvme 00:04.0 format', /no command "nvme format"/, 'nvme'],
    ['nvme 00:04.0 identify --yes', /no option --yes/, 'nvme identify'],
    ['nvme 00:04.0 read x', /one word too many/, 'nvme read'],
    ['nvme 00:04.0 read --frob', /unknown option '--frob'/, 'nvme read'],
    ['nvme 00:04.0 read --lba', /--lba needs a value/, 'nvme read'],
    ['nvme 00:04.0 read --lba -1', /--lba needs a value/, 'nvme read'],
    ['nvme 00:04.0 read --lba x', /--lba must be/, 'nvme read'],
    ['nvme 00:04.0 read --namespace 0', /--namespace must be/, 'nvme read'],
    ['nvme 00:04.0 read --blocks 0', /--blocks must be/, 'nvme read'],
    ['nvme 00:04.0 read --bytes 0', /--bytes must be/, 'nvme read'],
    ['nvme 00:04.0 read --blocks 1 --bytes 1', /give one of them/, 'nvme read'],
    ['nvme 00:04.0 read --json', /needs --output/, 'nvme read'],
    ['nvme 00:04.0 read --output=', /--output must name a file/, 'nvme read'],
    ['nvme 00:04.0 read --timeout never', /--timeout must be/, 'nvme'],
    ['nvme 00:04.0 write --json=yes', /does not take an argument/, 'nvme write'],
    ['state', /show, verify, diff, export/, 'state'],
    ['state frob', /no command "state frob"/, 'state'],
    ['state --frob', /unknown option '--frob'/, 'state'],
    ['state diff --frob', /unknown option '--frob'/, 'state diff'],
    ['state show', /the file is missing/, 'state show'],
    ['state show a b', /"b" is one word too many/, 'state show'],
    ['state show a --output b', /no option --output/, 'state show'],
    ['state verify', /the file is missing/, 'state verify'],
    ['state diff a', /the second file is missing/, 'state diff'],
    ['state diff a b c', /"c" is one word too many/, 'state diff'],
    ['state diff - -', /only one of the files can be standard input/, 'state diff'],
    ['state export', /the file is missing/, 'state export'],
    ['state export a --format xml', /--format must be one of dts, json, rfc, got "xml"/, 'state export'],
    ['state export a --output=', /--output must name a file/, 'state export'],
    ['state export a --json', /needs --output/, 'state export'],
  ];
  for (const [line, message, topic] of wrong) {
    t.throws(() => parse(line), { name: UsageError.name, message, topic }, line);
  }
});
