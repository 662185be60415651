/** hello and ping. */
import { TlsPoolError, protocolVersion } from 'libtlspool/protocol';
import { uptimeMs } from '../observe/index.js';
import type { Handlers } from './dispatch.js';

export const basicHandlers: Handlers<'hello' | 'ping'> = {
  hello({ front, connection }, { versions }) {
    if (!versions.includes(protocolVersion)) {
      throw new TlsPoolError('VERSION', { text: `the client speaks versions ${versions.join(', ') || '(none)'} of the protocol, the pool speaks ${protocolVersion}`, field: 'body.versions' });
    }
    connection.ready();
    return { version: protocolVersion, pool: front.parts.identification.pool, maxMessageOctets: front.parts.limits.messageOctets };
  },

  ping({ front }, { payload }) {
    const { identification } = front.parts;
    return { ...(payload !== undefined && { payload }), pool: identification.pool, pid: process.pid, uptimeMs: uptimeMs(identification) };
  },
};
