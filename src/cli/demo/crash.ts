/** Crashes, as the demonstration shows them: a driver's process is killed, and the next finds everything in the store. @module */
import { receiveInherited } from '../../keepalive/handoff/inheritance.js';
import type { KeepAlive } from '../../keepalive/keep-alive.js';
import { FdStore } from '../../keepalive/store/fd-store.js';
import { recover, StoredKeepAlive } from '../../keepalive/store/stored.js';
import { ServiceManager, type ServiceProcess } from '../../testing/service-manager.js';
import { Driver } from './driver.js';
import type { Mode, Narrator } from './mode.js';
import { describeRelease } from './release.js';
import { describeTally, type Stage } from './stage.js';
import { describeGap, describeInherited, type Succession, succession } from './succession.js';

export const KILLS = 5;

/** To be told of a command that the process before had been told of is no fault: it could not say so any more. */
export interface CrashReport extends Succession {
  readonly mode: Mode;
  /** What was left behind when everything was released; nothing, if all is well. */
  readonly leaked: readonly string[];
}

/** @throws whatever the library throws, and the reason of `signal` */
export async function showCrashes(
  stage: Stage,
  narrator: Narrator,
  signal: AbortSignal,
): Promise<CrashReport> {
  const { host, mode } = stage;
  const manager = new ServiceManager(host);
  let service = manager.start();
  const first = await Driver.start(stage, service.kernel);
  StoredKeepAlive.keep(first.kept, storeOf(service));
  const replace = async (driver: Driver): Promise<KeepAlive> => {
    service.process.exit();
    driver.end();
    service = manager.start();
    const found = recover(storeOf(service), receiveInherited(service.env, service.kernel));
    if (found === undefined)
      throw new Error('the descriptor store has nothing of the process that was killed');
    return found.kept;
  };
  const result = await succession(stage, first, replace, KILLS, narrator, signal);
  const { count, outcome } = result;
  narrator.step('kills', `${count}, as by kill -9: ${outcome}; ${describeInherited(result)}`);
  narrator.step('gap', describeGap(result));
  narrator.step('device saw', describeTally(result));
  const left = manager.stored.map(({ name }) => `${name} in the descriptor store`);
  manager.process.exit();
  const report = { mode, ...result, leaked: [...left, ...host.leftovers()] };
  narrator.step('release', describeRelease(report.leaked, 'the controller is back with its driver'));
  return report;
}

function storeOf({ env, kernel }: ServiceProcess): FdStore {
  const store = FdStore.fromEnvironment(env, kernel);
  if (store === undefined) throw new Error('there is no service manager');
  return store;
}
