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
  t.match(parse('nvme 00:04.0 write -i file --pad -y'), { input: 'file', pad: true, yes: true });
});

t.test('help is found from every place', async t => {
  const places: readonly [string, TopicName][] = [
    ['--help', ''],
    ['devices -h', 'devices'],
    ['nvme --help', 'nvme'],
    ['nvme 00:04.0 -h', 'nvme'],
    ['nvme read --help', 'nvme read'],
    ['nvme 00:04.0 write --yes --help', 'nvme write'],
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
  ];
  for (const [line, message, topic] of wrong) {
    t.throws(() => parse(line), { name: UsageError.name, message, topic }, line);
  }
});
