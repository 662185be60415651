/** Opens a PKCS#12 file in a thread of its own, so that the pool serves on meanwhile, and within a time. */
import { closeSync, openSync } from 'node:fs';
import { Worker } from 'node:worker_threads';

/** What the thread is given. */
export interface Sealed { readonly octets: Uint8Array; readonly password: Uint8Array }
/** DER. The keys (PKCS#8) are the caller's to wipe. */
export interface Contents { readonly keys: readonly Uint8Array<ArrayBuffer>[]; readonly certificates: readonly Uint8Array<ArrayBuffer>[] }
/** Why there are no contents: because of the file (in the library's words), the time it takes, or the thread, which could not be made or came to its end. */
export interface Unopened { readonly fault: 'file' | 'time' | 'thread'; readonly reason: string }

/** In milliseconds: far above what a million iterations take, which is some ten seconds. */
export const openMs = 120_000;
/** Of the thread's heap, in MiB: what is garbage in some file must not take the pool's memory. */
const heapMiB = 256;

/** More descriptors than a thread and the files of its program take. */
const threadFds = 16;

/** Throws where there are not as many descriptors as a thread takes. Node would lose one for good with each thread that it cannot make. */
function checkRoom(): void {
  const held: number[] = [];
  try {
    while (held.length < threadFds) held.push(openSync('/dev/null', 'r'));
  } finally {
    for (const fd of held) closeSync(fd);
  }
}

/** Memory of both threads, so that no copy of it is left in between. */
function shared(octets: Uint8Array): Uint8Array {
  const copy = new Uint8Array(new SharedArrayBuffer(octets.length));
  copy.set(octets);
  return copy;
}

/** Never rejects. `octets` and `password` stay the caller's. The thread is gone when the promise resolves, unless that was for the time. */
export async function openPkcs12(octets: Uint8Array, password: Uint8Array, deadlineMs = openMs): Promise<Contents | Unopened> {
  const given: Sealed = { octets: shared(octets), password: shared(password) };
  let worker: Worker | undefined;
  let timer: NodeJS.Timeout | undefined;
  let isLate = false;
  try {
    checkRoom();
    const thread = worker = new Worker(new URL('./pkcs12-worker.js', import.meta.url), { workerData: given, env: {}, execArgv: [], resourceLimits: { maxOldGenerationSizeMb: heapMiB } });
    return await new Promise<Contents | Unopened>((resolve) => {
      timer = setTimeout(() => {
        isLate = true;
        resolve({ fault: 'time', reason: `not open after ${deadlineMs / 1000} s` });
      }, deadlineMs);
      thread.once('message', resolve);
      thread.once('error', ({ message }) => { resolve({ fault: 'thread', reason: message }); });
      thread.once('exit', () => { resolve({ fault: 'thread', reason: 'it ended' }); });
    });
  } catch (error) {
    return { fault: 'thread', reason: (error as Error).message };
  } finally {
    clearTimeout(timer);
    const ended = worker?.terminate();
    // In the middle of a computation of OpenSSL it ends when that does, and nobody waits for it.
    if (!isLate) await ended;
    for (const each of [given.octets, given.password]) each.fill(0);
  }
}
