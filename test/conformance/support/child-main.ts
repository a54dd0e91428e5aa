/** The program of a child process on the real kernel: runs one of the tasks. @module */
import { linux } from '../../../bindings/linux.js';
import { findTask } from './child-tasks.js';
import { Conversation } from './conversation.js';

/** Descriptors 0 to 2 are the standard streams, and 3 is the channel to the parent. */
const FIRST_DESCRIPTOR = 4;

const [name = '', count = '0'] = process.argv.slice(2);
const heard = new Conversation('the parent');
process.on('message', (message: { argument: unknown } | { value: unknown }) => {
  if ('value' in message) heard.say(message.value);
  else void run(message.argument);
});
process.on('disconnect', () => process.exit(1));

async function run(argument: unknown): Promise<void> {
  await findTask(name)({
    kernel: linux(),
    descriptors: Array.from({ length: Number(count) }, (_, i) => FIRST_DESCRIPTOR + i),
    argument,
    say: value => process.send?.(value),
    heard: () => heard.next(),
  });
  process.removeAllListeners('disconnect');
  process.disconnect();
}
