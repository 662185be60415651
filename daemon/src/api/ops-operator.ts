/** status, sessions, identities, reload. */
import { X509Certificate } from 'node:crypto';
import { TlsPoolError, encodeMessage, fitText } from 'libtlspool/protocol';
import type { Message, ReplyBody } from 'libtlspool/protocol';
import { statusOf } from '../observe/index.js';
import type { Session } from '../session/index.js';
import type { Handlers } from './dispatch.js';
import type { Front } from './front.js';

type SessionRow = ReplyBody<'sessions'>['sessions'][number];
type IdentityRow = ReplyBody<'identities'>['identities'][number];

const defaultPage = 100;
const maxSubjectOctets = 512;
const maxId = 0xffff_ffff;
/** Names in the reply to `reload`, as the message table has it. */
const maxChanged = 1000;

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
    // An operator who asks for a reload may have put something right.
    front.services.unlocking.retry();
    const shown = changed.slice(0, maxChanged);
    return largest(shown.length, (count) => ({ changed: shown.slice(0, count), unchanged }), (body) => fits({ type: 'reply', op: 'reload', id: maxId, body }, front));
  },
};

/** As many of the sessions after that number as were asked for and fit into one message. */
function sessionPage(front: Front, after: number, limit: number): ReplyBody<'sessions'> {
  // By number, not by age: a page must go on where the one before has ended, whatever has come and gone meanwhile.
  const wanted = [...front.sessions.all()].filter(({ number, profile }) => number > after && profile !== undefined).sort((a, b) => a.number - b.number);
  const rows = wanted.slice(0, limit).map(rowOf);
  return largest(rows.length, (count) => {
    const last = rows[count - 1];
    return { sessions: rows.slice(0, count), ...(count < wanted.length && last !== undefined && { next: last.session }) };
  }, (body) => fits({ type: 'reply', op: 'sessions', id: maxId, body }, front));
}

/** As many of the identities after that name as fit into one message. */
function identityPage(front: Front, after: string): ReplyBody<'identities'> {
  const wanted = front.parts.store.list().map(({ summary }) => summary).filter(({ localid }) => localid > after).sort((a, b) => (a.localid < b.localid ? -1 : 1));
  if (wanted[0] !== undefined) wanted[0] = shortened(wanted[0], front);
  return largest(wanted.length, (count) => {
    const last = wanted[count - 1];
    return { identities: wanted.slice(0, count), ...(count < wanted.length && last !== undefined && { next: last.localid }) };
  }, (body) => fits({ type: 'reply', op: 'identities', id: maxId, body }, front));
}

/** A page of rows that fits, found by halving. A single row that does not fit is refused when it is sent. */
function largest<Page>(rows: number, pageOf: (count: number) => Page, isFit: (page: Page) => boolean): Page {
  let count = rows;
  while (count > 1 && !isFit(pageOf(count))) count = Math.floor(count / 2);
  return pageOf(count);
}

/** An identity with so many names that it fills a message alone is shown without its last ones: it must not hide all that come after it. */
function shortened(identity: IdentityRow, front: Front): IdentityRow {
  const { names } = identity;
  return largest(names.length, (count) => ({ ...identity, names: names.slice(0, count) }), (row) =>
    fits({ type: 'reply', op: 'identities', id: maxId, body: { identities: [row], next: row.localid } }, front));
}

function fits(message: Message, front: Front): boolean {
  try {
    encodeMessage(message, front.parts.limits.messageOctets);
    return true;
  } catch (error) {
    if (error instanceof TlsPoolError && error.code === 'MESSAGE_TOO_LARGE') return false;
    throw error;
  }
}

function rowOf(session: Session): SessionRow {
  const { profile, remote, owner } = session;
  if (profile === undefined) throw new TlsPoolError('INTERNAL');
  const subject = subjectOf(session);
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
    startedAtMs: session.startedAtMs,
  };
}

/** The peer's subject on one line; a certificate that OpenSSL accepted and Node cannot read has none. */
function subjectOf(session: Session): string | undefined {
  const [leaf] = session.peerCertificates;
  if (leaf === undefined) return undefined;
  try {
    return fitText(new X509Certificate(leaf).subject.replaceAll('\n', ', '), maxSubjectOctets);
  } catch {
    return undefined;
  }
}
