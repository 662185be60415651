/** What the kernel says about a process: descriptors, memory, limits. */
import { readFileSync, readdirSync, readlinkSync } from 'node:fs';

/** Descriptor number -> what it refers to, such as `socket:[123]`. */
export function descriptors(pid: number): Map<number, string> {
  const found = new Map<number, string>();
  for (const name of readdirSync(`/proc/${String(pid)}/fd`)) {
    try {
      found.set(Number(name), readlinkSync(`/proc/${String(pid)}/fd/${name}`));
    } catch { /* closed since the folder was read; for our own process that is the folder itself */ }
  }
  return found;
}

/** How many descriptors the process has open. */
export function fdCount(pid: number): number {
  return descriptors(pid).size;
}

function statusField(pid: number, field: string): number {
  const line = readFileSync(`/proc/${String(pid)}/status`, 'utf8').split('\n').find((text) => text.startsWith(`${field}:`));
  if (line === undefined) throw new Error(`/proc/${String(pid)}/status has no ${field}; has the process ended?`);
  return Number(line.replace(/[^0-9]/gu, ''));
}

/** Resident memory in KiB. */
export function rssKiB(pid: number): number {
  return statusField(pid, 'VmRSS');
}

/** Highest resident memory so far in KiB. */
export function peakRssKiB(pid: number): number {
  return statusField(pid, 'VmHWM');
}
