/**
 * What a test run leaves behind is removed here, however the run ends: temporary folders, processes, sockets.
 *
 * Importing this file registers one root hook of mocha; a hook cannot be registered later, from inside another hook.
 * Tests close what they open; this is for the tests that failed halfway.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';

type Cleaner = () => void | Promise<void>;

const cleaners: Cleaner[] = [];
const processes = new Set<number>();
const folders = new Set<string>();

/** Runs when all tests are over, last registered first. Must be harmless when the thing is gone already. */
export function atEnd(cleaner: Cleaner): void {
  cleaners.push(cleaner);
}

/** The process is killed when this one ends, even by an exception outside mocha. Returns a function that forgets it. */
export function killAtExit(pid: number): () => void {
  processes.add(pid);
  return () => { processes.delete(pid); };
}

/** A new empty folder with a short path (UNIX socket paths end at 107 octets), mode 0700, removed at the end of the run. */
export function tempFolder(prefix = 'tlsp-'): string {
  const folder = mkdtempSync(path.join(os.tmpdir(), prefix));
  folders.add(folder);
  return folder;
}

function killAll(): void {
  for (const pid of processes) {
    try { process.kill(pid, 'SIGKILL'); } catch { /* ESRCH: it has ended by itself */ }
  }
  processes.clear();
}

function removeFolders(): void {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
  folders.clear();
}

if (typeof globalThis.after === 'function') {
  globalThis.after('what tests left behind is removed', async () => {
    for (const cleaner of cleaners.splice(0).reverse()) await cleaner();
    killAll();
    removeFolders();
  });
}
process.on('exit', () => { killAll(); removeFolders(); });
