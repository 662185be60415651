/** register, unregister, forget: what a client does for the pool. */
import { setImmediate } from 'node:timers/promises';
import { TlsPoolError } from 'libtlspool/protocol';
import { mayOffer } from './client-services.js';
import type { Handlers } from './dispatch.js';

const defaultTimeoutMs = 60_000;

export const serviceHandlers: Handlers<'register' | 'unregister' | 'forget'> = {
  register({ front, connection }, { service, timeoutMs = defaultTimeoutMs }) {
    const { uid, pid } = connection.client;
    if (front.state === 'draining') throw new TlsPoolError('POOL_DRAINING');
    if (timeoutMs === 0) throw new TlsPoolError('BAD_ARGUMENT', { text: 'timeoutMs is from 1 to 600000', field: 'body.timeoutMs' });
    if (!mayOffer(front.parts.access, connection.client, service)) {
      const text = service === 'pin'
        ? 'the PIN entry is for operators: root, the user that the pool runs as, and whom a rule gives "operator"'
        : `user ${uid} may not use this pool for outgoing connections, so there is nothing to choose`;
      throw new TlsPoolError('NOT_PERMITTED', { text, field: 'body.service' });
    }
    front.clientServices.register(connection, service, timeoutMs);
    front.parts.log.info('a client offers a service', { service, uid, clientPid: pid });
    return {};
  },

  async unregister({ front, connection }, { service }) {
    // What was answered before counts, also when it came in the same breath.
    await setImmediate();
    front.clientServices.unregister(connection, service);
    // A PIN that has come before is still tried; afterwards it is known what it was worth.
    if (service === 'pin') await front.services.unlocking.idle();
    return {};
  },

  forget({ front, connection }, { remoteid }) {
    return { forgotten: front.services.forget(connection.client.uid, remoteid) };
  },
};
