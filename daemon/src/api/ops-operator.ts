/** status, sessions, identities, reload. */
import { X509Certificate } from 'node:crypto';
import { TlsPoolError, encodeMessage } from 'libtlspool/protocol';
import type { Message, ReplyBody } from 'libtlspool/protocol';
import { statusOf } from '../observe/index.js';
import type { Session } from '../session/index.js';
import type { Handlers } from './dispatch.js';
import { maxSentOctets } from './connection.js';
import { clipText } from './faults.js';
import type { Front } from './front.js';

type SessionRow = ReplyBody<'sessions'>['sessions'][number];

const defaultPage = 100;
const maxSubjectOctets = 512;
const maxId = 0xffff_ffff;

export const operatorHandlers: Handlers<'status' | 'sessions' | 'identities' | 'reload'> = {
  status({ front }) {
    return statusOf(front.parts.identification, {
      state: front.state, clients: front.clients.size, listeners: front.listeners.size, identities: front.parts.store.list().length,
      counters: front.parts.engine.counters(), reload: front.parts.reloads,
    });
  },

  sessions({ front }, { after, limit }) {
    if (limit === 0) throw new TlsPoolError('BAD_ARGUMENT', { text: 'a page has 1 to 500 sessions', field: 'body.limit' });
    return sessionPage(front, after ?? -1, limit ?? defaultPage);
  },

  identities({ front }, { after }) {
    return identityPage(front, after ?? '');
  },

  async reload({ front }) {
    const { changed, unchanged } = await front.parts.reload();
    return { changed, unchanged };
  },
};

/** As many of the sessions after that number as were asked for and fit into one message. */
function sessionPage(front: Front, after: number, limit: number): ReplyBody<'sessions'> {
  // By number, not by age: a page must go on where the one before has ended, whatever has come and gone meanwhile.
  const wanted = [...front.sessions.all()].filter(({ number, profile }) => number > after && profile !== undefined).sort((a, b) => a.number - b.number);
  const rows = wanted.slice(0, limit).map((session) => rowOf(front, session));
  return largest(rows.length, (count) => {
    const last = rows[count - 1];
    return { sessions: rows.slice(0, count), ...(count < wanted.length && last !== undefined && { next: last.session }) };
  }, (body) => fits({ type: 'reply', op: 'sessions', id: maxId, body }, front));
}

/** As many of the identities after that name as fit into one message. */
function identityPage(front: Front, after: string): ReplyBody<'identities'> {
  const wanted = front.parts.store.list().map(({ summary }) => summary).filter(({ localid }) => localid > after).sort((a, b) => (a.localid < b.localid ? -1 : 1));
  return largest(wanted.length, (count) => {
    const last = wanted[count - 1];
    return { identities: wanted.slice(0, count), ...(count < wanted.length && last !== undefined && { next: last.localid }) };
  }, (body) => fits({ type: 'reply', op: 'identities', id: maxId, body }, front));
}

/** The page with the most rows that fits, found by halving. A single row that does not fit is refused when it is sent. */
function largest<Page>(rows: number, pageOf: (count: number) => Page, isFit: (page: Page) => boolean): Page {
  let count = rows;
  while (count > 1 && !isFit(pageOf(count))) count = Math.floor(count / 2);
  return pageOf(count);
}

function fits(message: Message, front: Front): boolean {
  try {
    encodeMessage(message, maxSentOctets(front.parts.limits));
    return true;
  } catch (error) {
    if (error instanceof TlsPoolError && error.code === 'MESSAGE_TOO_LARGE') return false;
    throw error;
  }
}

function rowOf(front: Front, session: Session): SessionRow {
  const { profile, remote, owner } = session;
  if (profile === undefined) throw new TlsPoolError('INTERNAL');
  const subject = subjectOf(session);
  const traffic = front.parts.engine.traffic?.(session.number) ?? { octetsReceived: 0, octetsSent: 0 };
  return {
    session: session.number, role: profile.role, protocol: profile.protocol, cipher: profile.cipher,
    ...(profile.group !== undefined && { group: profile.group }),
    ...(profile.alpn !== undefined && { alpn: profile.alpn }),
    ...(profile.servername !== undefined && { servername: profile.servername }),
    ...(profile.localid !== '' && { localid: profile.localid, revision: profile.revision }),
    resumed: profile.resumed, authorized: profile.authorized,
    ...(subject !== undefined && { subject }),
    ...(remote !== undefined && { remote }),
    ...(owner !== null && { ownerPid: owner.client.pid, ownerUid: owner.client.uid }),
    startedAtMs: session.startedAtMs, octetsReceived: traffic.octetsReceived, octetsSent: traffic.octetsSent,
  };
}

/** The peer's subject on one line; a certificate that OpenSSL accepted and Node cannot read has none. */
function subjectOf(session: Session): string | undefined {
  const [leaf] = session.peerCertificates;
  if (leaf === undefined) return undefined;
  try {
    return clipText(new X509Certificate(leaf).subject.replaceAll('\n', ', '), maxSubjectOctets);
  } catch {
    return undefined;
  }
}
