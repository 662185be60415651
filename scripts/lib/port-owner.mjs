// Who listens on a TCP port, from /proc. Best effort: processes of other users do not show their descriptors.
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';

const listening = '0A';

/** Inodes of the sockets that listen on the port, in IPv4 and IPv6. */
function inodes(port) {
  const found = new Set();
  for (const file of ['/proc/net/tcp', '/proc/net/tcp6']) {
    const lines = readOr(file, '').split('\n').slice(1);
    for (const [, local = '', , state, , , , , , inode] of lines.map((line) => line.trim().split(/\s+/))) {
      if (state === listening && Number.parseInt(local.split(':')[1], 16) === port) found.add(`socket:[${inode}]`);
    }
  }
  return found;
}

function readOr(file, otherwise) {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return otherwise;
  }
}

function holds(pid, sockets) {
  try {
    return readdirSync(`/proc/${pid}/fd`).some((fd) => {
      try { return sockets.has(readlinkSync(`/proc/${pid}/fd/${fd}`)); } catch { return false; }
    });
  } catch {
    return false; // It has ended, or is somebody else's.
  }
}

/** For people: `process 12 (node server.js)`, or `a process of another user` when the kernel does not say. */
export function portOwner(port) {
  const sockets = inodes(port);
  const pid = readdirSync('/proc').filter((name) => /^\d+$/.test(name)).find((name) => holds(name, sockets));
  if (pid === undefined) return 'a process of another user';
  const words = readOr(`/proc/${pid}/cmdline`, '').split('\0').join(' ').trim().replace(/[^\x20-\x7e]/g, '?');
  return `process ${pid} (${words.length > 80 ? `${words.slice(0, 80)}...` : words})`;
}
