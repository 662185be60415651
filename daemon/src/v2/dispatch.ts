/** From a request of the V2 dialect to its handler. Each has one answer, or, for the two registrations, none when it succeeds. */
import type { Front } from '../api/front.js';
import type { FdBag } from '../api/fdbag.js';
import type { V2Connection } from './connection.js';
import { detach, reattach } from './control.js';
import { V2Error, asV2Error } from './errors.js';
import type { TableError } from './errors.js';
import { prng } from './exporter.js';
import { codec, commands } from './frames.js';
import type { V2Front } from './front.js';
import { info } from './info.js';
import { registerChooser } from './lidentry.js';
import { ping } from './ping.js';
import { registerPinEntry } from './pinentry.js';
import { starttls } from './starttls.js';

/** One request being handled. */
export interface V2Call {
  readonly v2: V2Front;
  readonly connection: V2Connection;
  /** The request, which becomes its answer. */
  readonly frame: Buffer;
  /** What came with the request, one descriptor or none; closed afterwards unless released. */
  readonly fds: FdBag;
}

/** Answers a request, or arranges for that, or throws what the client is told. */
type Handler = (call: V2Call) => void;

const handlers: ReadonlyMap<number, Handler> = new Map<number, Handler>([
  [commands.PING, ping],
  [commands.STARTTLS, starttls],
  [commands.PRNG, prng],
  [commands.INFO, info],
  [commands.CONTROL_DETACH, detach],
  [commands.CONTROL_REATTACH, reattach],
  [commands.LIDENTRY_REGISTER, registerChooser],
  [commands.PINENTRY, registerPinEntry],
]);

export function dispatch(call: V2Call): void {
  const { v2: { front }, connection, frame } = call;
  try {
    const { cmd } = codec.read(frame, 'head');
    const handler = handlers.get(cmd);
    if (handler === undefined) throw new V2Error('COMMAND_UNKNOWN', `0x${cmd.toString(16)}`);
    handler(call);
  } catch (thrown) {
    refuse(front, connection, frame, thrown);
  }
}

/** Answers by what was thrown, and logs what should not have been. */
export function refuse(front: Front, connection: V2Connection, frame: Buffer, thrown: unknown, otherwise: TableError = 'CONNECTION_HANDLER_SETUP'): void {
  const error = asV2Error(thrown, otherwise);
  if (error.reason === 'CONNECTION_HANDLER_SETUP') front.parts.log.error('a V2 request failed unexpectedly', { text: String(thrown) });
  connection.refuse(frame, error);
}
