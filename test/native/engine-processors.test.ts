/** Which processors the engine's threads run on, as the kernel says (sched_getaffinity(2) by /proc). */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { usableProcessors } from 'tlspool/dist/config/processors.js';
import { engine as addon } from 'tlspool/dist/engine.js';
import type { EngineOptions } from 'tlspool/dist/engine.js';

const options: EngineOptions = { workers: 3, sessionsMax: 10, handshakesMax: 10, handshakeMs: 1000, lingerMs: 0, onEvents: () => undefined };
const usable = [...usableProcessors()];
const first = usable[0]!;
const last = usable.at(-1)!;

/** Allowed processors by name of thread, of those of the engine. */
function placement(): Record<string, string> {
  const threads = readdirSync('/proc/self/task').map((id) => readFileSync(`/proc/self/task/${id}/status`, 'utf8'));
  const of = (status: string, key: string) => new RegExp(`^${key}:\\s*(.+)$`, 'm').exec(status)?.[1] ?? '';
  return Object.fromEntries(threads.map((status) => [of(status, 'Name'), of(status, 'Cpus_allowed_list')]).filter(([name]) => name!.startsWith('tlspool-')));
}

describe('engine: processors of its threads', () => {
  it('each thread is bound to the processor whose turn it is', () => {
    const engine = new addon.Engine({ ...options, workerCpus: first === last ? [first] : [first, last] });
    try {
      assert.deepEqual(placement(), { 'tlspool-0': String(first), 'tlspool-1': String(last), 'tlspool-2': String(first) });
    } finally {
      engine.stop();
    }
  });
  it('without processors the threads may run wherever the process may', () => {
    const engine = new addon.Engine(options);
    try {
      const anywhere = /^Cpus_allowed_list:\s*(.+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1];
      assert.deepEqual(placement(), { 'tlspool-0': anywhere, 'tlspool-1': anywhere, 'tlspool-2': anywhere });
    } finally {
      engine.stop();
    }
  });
  it('a processor that the process may not use is refused, and no thread is left', () => {
    assert.throws(() => new addon.Engine({ ...options, workerCpus: [first, 1023] }), { code: 'SYSTEM', message: /processor 1023 is not one that this process may use/ });
    assert.deepEqual(placement(), {});
  });
  it('numbers that no set of processors can hold are refused', () => {
    for (const workerCpus of [[-1], [1024], [0.5], ['0'], 0]) {
      assert.throws(() => new addon.Engine({ ...options, workerCpus: workerCpus as number[] }), { code: 'BAD_ARGUMENT', field: 'workerCpus' }, JSON.stringify(workerCpus));
    }
  });
});
