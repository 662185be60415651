/** Which processors this process may run on: the affinity that it was started with, within its cpuset. */
import { readFileSync } from 'node:fs';

/** Parses the kernel's list format (cpuset(7)): `0-3,8` is {0, 1, 2, 3, 8}. */
export function parseProcessorList(text: string): ReadonlySet<number> {
  const ranges = text.trim().split(',').map((range) => range.split('-').map(Number));
  return new Set(ranges.flatMap(([first = 0, last = first]) => Array.from({ length: last - first + 1 }, (_, index) => first + index)));
}

/** By `Cpus_allowed_list` of proc_pid_status(5). Throws where /proc is not mounted. */
export function usableProcessors(): ReadonlySet<number> {
  const [, list] = /^Cpus_allowed_list:\s*(.+)$/m.exec(readFileSync('/proc/self/status', 'utf8')) ?? [];
  if (list === undefined) throw new Error('/proc/self/status has no Cpus_allowed_list');
  return parseProcessorList(list);
}
