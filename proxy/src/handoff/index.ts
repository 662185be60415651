/** The ways to a backend, by name. */
import { nameOf } from 'libtlspool/preamble';
import { sockets } from 'libtlspool/native';
import type { OwnedFd } from 'libtlspool/native';
import { TlsPoolError, escapeText } from 'libtlspool/protocol';
import type { BackendConfig } from '../config/types.js';
import type { ServiceContext } from '../service.js';
import type { ConnectConfig } from './connect.js';
import { execHandoff } from './exec.js';
import type { ExecConfig, ExecConnection } from './exec.js';
import { HandoffOffer } from './fd.js';
import type { FdConfig } from './fd.js';
import { relayPlain } from './plainrelay.js';
import type { Relayed } from './plainrelay.js';
import type { HandedOver, PlainConnection, SecuredConnection } from './types.js';

export type { FdConfig, HandoffOffer } from './fd.js';

/** For the log, before it is known who got the connection. */
export function nameOfBackend(backend: BackendConfig): string {
  switch (backend.handoff) {
    case 'fd': return backend.path;
    case 'connect': return nameOf(backend.to);
    case 'exec': return escapeText(backend.command[0], 200);
  }
}

/** A connection to a backend that takes descriptors, to ask it about a name first. Rejects with BACKEND_FAILED or ABORTED. */
export function offerTo(backend: FdConfig, { service, signal }: ServiceContext): Promise<HandoffOffer> {
  return HandoffOffer.connect(backend, { deadlineMs: service.backendMs, signal });
}

/** Hands over a protected connection whose plain-text side is a socket pair. `offer`: the connection on which the backend was asked already. Rejects as the one way does. */
export async function handOver(backend: BackendConfig, connection: SecuredConnection, context: ServiceContext, offer: HandoffOffer | undefined): Promise<HandedOver> {
  switch (backend.handoff) {
    case 'fd':
      return give(offer ?? await offerTo(backend, context), (to) => to.give(connection));
    case 'exec':
      return run(backend, connection, context);
    case 'connect':
      throw new TlsPoolError('INTERNAL', { text: 'the pool was not given the socket of the backend' });
  }
}

/** Hands over the connection of a client that did not ask for TLS. Resolves when that is all done; with what went through here, where it did. Rejects as the one way does. */
export async function handOverPlain(
  backend: BackendConfig, connection: PlainConnection, context: ServiceContext, connect: (backend: ConnectConfig) => Promise<OwnedFd>,
): Promise<Relayed | undefined> {
  const { plainfd, ahead } = connection;
  switch (backend.handoff) {
    case 'fd':
      await give(await offerTo(backend, context), (to) => to.givePlain(connection));
      return undefined;
    case 'connect':
      return relayPlain(plainfd, await connect(backend), ahead, context.signal);
    case 'exec': {
      // The program gets a socket of its own: what was read of the client's cannot be put back.
      const [ours, theirs] = sockets.socketpair('stream');
      try {
        await run(backend, { ...connection, plainfd: theirs }, context);
      } catch (error) {
        sockets.close(ours);
        throw error;
      } finally {
        sockets.close(theirs);
      }
      return relayPlain(plainfd, ours, ahead, context.signal);
    }
  }
}

async function give(offer: HandoffOffer, how: (offer: HandoffOffer) => Promise<HandedOver>): Promise<HandedOver> {
  try {
    return await how(offer);
  } finally {
    offer.close();
  }
}

function run(backend: ExecConfig, connection: ExecConnection, { service, places, signal, onProgramOutput }: ServiceContext): Promise<HandedOver> {
  return execHandoff(backend, connection, {
    signal,
    enter: () => places.programs.take(`${service.name} ${backend.command.join(' ')}`, backend.max),
    onOutput: (line) => onProgramOutput(service.name, line),
  });
}
