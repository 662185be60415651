// Processes that an earlier start left behind, by their command line. Best effort: only our own, and only where /proc shows them.
import { readdirSync, readFileSync, statSync } from 'node:fs';

const lookMs = 50;

/** Numbers of our processes that have all of these words in their command line. One that has ended has none, even if nobody has waited for it. */
export function processesWith(...words) {
  return readdirSync('/proc').filter((name) => /^\d+$/.test(name) && isOursWith(`/proc/${name}`, words)).map(Number);
}

function isOursWith(folder, words) {
  try {
    const line = readFileSync(`${folder}/cmdline`, 'utf8').split('\0');
    return statSync(folder).uid === process.getuid() && words.every((word) => line.includes(word));
  } catch {
    return false; // It has just ended.
  }
}

/** Ends a process that processesWith() found: asks, and after a while makes it. */
export async function endProcess(pid, { words, afterMs }) {
  const deadline = performance.now() + afterMs;
  for (let signal = 'SIGTERM'; processesWith(...words).includes(pid); signal = performance.now() < deadline ? undefined : 'SIGKILL') {
    if (signal !== undefined) try { process.kill(pid, signal); } catch { return; }
    await new Promise((resolve) => { setTimeout(resolve, lookMs); });
  }
}
