/** Which keys cannot change while the pool runs. */
import type { Config } from './types.js';

type Getter = (config: Config) => string | number | undefined;

/** As people write permissions. */
const octal = (mode: number): string => `0${mode.toString(8)}`;

const fixedKeys: Readonly<Record<string, Getter>> = {
  'socket.path': ({ socket }) => socket.path,
  'socket.mode': ({ socket }) => octal(socket.mode),
  'socket.group': ({ socket }) => socket.gid,
  'v2.socket.path': ({ v2 }) => v2?.socket.path,
  'v2.socket.mode': ({ v2 }) => (v2 === undefined ? undefined : octal(v2.socket.mode)),
  'v2.socket.group': ({ v2 }) => v2?.socket.gid,
  'v2.pidFile': ({ v2 }) => v2?.pidFile,
  state: ({ state }) => state,
  workers: ({ workers }) => workers,
  workerCpus: ({ workerCpus }) => workerCpus?.join(',') ?? 'none',
  'log.level': ({ log }) => log.level,
  'log.format': ({ log }) => log.format,
  'limits.sessions': ({ limits }) => limits.sessions,
  'limits.handshakes': ({ limits }) => limits.handshakes,
  'limits.handshakeMs': ({ limits }) => limits.handshakeMs,
  'limits.messageOctets': ({ limits }) => limits.messageOctets,
  'limits.clients': ({ limits }) => limits.clients,
  'limits.listenersPerClient': ({ limits }) => limits.listenersPerClient,
  'limits.requestsPerClient': ({ limits }) => limits.requestsPerClient,
  'limits.lingerMs': ({ limits }) => limits.lingerMs,
  'limits.queuedConnections': ({ limits }) => limits.queuedConnections,
  drainMs: ({ drainMs }) => drainMs,
};

/** The keys that differ and need a restart, such as `workers (2, now 4)`. Empty when the new configuration can be put in force. */
export function changedKeys(running: Config, fresh: Config): readonly string[] {
  return Object.entries(fixedKeys)
    .filter(([, get]) => get(running) !== get(fresh))
    .map(([key, get]) => `${key} (${get(running) ?? 'none'}, now ${get(fresh) ?? 'none'})`);
}

/** For the test that holds this table and the documentation together. */
export const restartKeys: readonly string[] = Object.keys(fixedKeys);
