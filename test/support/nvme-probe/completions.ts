/** Completions and interrupts. @module */
import { hex, type Probe, Register } from './probe.js';
import { type Completion, DOORBELLS } from './raw-queue.js';

/** Order of completions, queue heads, back-pressure, interrupts. */
export async function completions(probe: Probe): Promise<void> {
  await probe.start();
  await probe.makeIoQueue();
  const { io, controller } = probe;
  const read = { opcode: 2, nsid: 1, cdw10: 0, cdw12: 0, prp1: probe.dataAddress() };
  const before = controller.interrupts(1);
  const first = await probe.run(io, read);
  probe.note('first completion: SQ head, SQ id', `${first?.sqHead} ${first?.sqId}`);
  await controller.sleep(20);
  probe.note('first completion: interrupts', String(controller.interrupts(1) - before));
  // 7 commands fill the completion queue but for one place.
  for (let i = 0; i < 7; i++) io.put(read);
  io.ring();
  await controller.sleep(100);
  const taken: Completion[] = [];
  const take = (): void => {
    for (let entry = io.take(); entry; entry = io.take()) taken.push(entry);
  };
  take();
  probe.note('7 commands', taken.length.toString());
  // The places are not given back: none of the next can be completed.
  for (let i = 0; i < 5; i++) io.put(read);
  io.ring();
  await controller.sleep(100);
  take();
  probe.note('5 more without room', taken.length.toString());
  io.acknowledge();
  await controller.sleep(100);
  take();
  probe.note('5 more with room', taken.length.toString());
  probe.note('heads', taken.map(entry => entry.sqHead).join(' '));
  io.acknowledge();
  controller.write(DOORBELLS + 8, 4, 8n);
  controller.write(DOORBELLS + 8, 4, 0xffff_0008n);
  await controller.sleep(20);
  probe.note('CSTS after wrong tails', hex(controller.read(Register.CSTS, 4)));
  controller.setBusMaster(false);
  io.put(read);
  io.ring();
  await controller.sleep(50);
  probe.note('CSTS after a command without bus mastering', hex(controller.read(Register.CSTS, 4)));
  probe.note('CC then', hex(controller.read(Register.CC, 4), 8));
  controller.setBusMaster(true);
  await controller.sleep(20);
  probe.note('CSTS with bus mastering again', hex(controller.read(Register.CSTS, 4)));
  io.put(read);
  io.ring();
  probe.note('commands are served nevertheless', String((await io.next(300))?.sqHead));
  probe.note('disabled', hex(await probe.configure(0n)));
  probe.note('enabled once more', hex(await probe.start()));
  await probe.makeIoQueue();
  probe.note('I/O once more', hex((await probe.run(probe.io, read))?.status ?? 0xffff));
  await probe.configure(0n);
}
