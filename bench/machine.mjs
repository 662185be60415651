/** What the numbers were made on, without saying whose machine it is. */
import { spawnSync } from 'node:child_process';
import os from 'node:os';

/** @param {readonly {name: string, program: string, versionArgs: readonly string[]}[]} peers */
export function describeMachine(peers) {
  return {
    date: new Date().toISOString().slice(0, 10),
    cpu: `${os.cpus()[0].model.trim()}, ${os.cpus().length} cores`,
    memoryGiB: Math.round(os.totalmem() / 2 ** 30),
    kernel: `Linux ${/^\d+\.\d+(\.\d+)?/.exec(os.release())?.[0] ?? 'unknown'}`,
    node: `${process.version} (OpenSSL ${process.versions.openssl})`,
    opensslOfPeers: `OpenSSL ${versionOf(firstLine('openssl', ['version']))}`,
    peers: Object.fromEntries(peers.map(({ name, program, versionArgs }) => [name, versionOf(firstLine(program, versionArgs))])),
  };
}

function firstLine(program, args) {
  const { stdout, stderr } = spawnSync(program, args, { encoding: 'utf8' });
  return `${stdout ?? ''}${stderr ?? ''}`.split('\n').find((line) => /\d+\.\d+/.test(line)) ?? 'unknown';
}

const versionOf = (line) => /\d+\.\d+(\.\d+)*/.exec(line)?.[0] ?? 'unknown';
