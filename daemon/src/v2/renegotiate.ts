/**
 * STARTTLS with RENEGOTIATE: the client of a session is asked for its certificate anew, while octets flow. There is never a callback: the C library would crash on one.
 */
import { judgementOf } from '../api/judgement.js';
import { refusalOf } from '../api/work.js';
import { factsOf } from '../session/index.js';
import { attached } from './control.js';
import type { V2Call } from './dispatch.js';
import { asV2Error, V2Error } from './errors.js';
import { hasFlag, startFlags } from './flags.js';
import { codec, commands } from './frames.js';
import type { Fields } from './frames.js';
import type { EngineAnswer } from '../api/work.js';

export function renegotiate(call: V2Call, { flags, ctlkey, timeout }: Fields<'starttls'>): void {
  const { v2: { front }, v2, connection, frame, fds } = call;
  if (fds.count > 0) throw new V2Error('SUPERFLUOUS_SOCKET');
  const session = attached(v2, connection, ctlkey, 'RENOGIATE_NOT_FOUND');
  const { profile } = factsOf(session);
  if (profile.role !== 'server') throw new V2Error('RENOGIATE_WOULD_BE_INSECURE', 'the server is who asks for it');
  if (hasFlag(flags, 'IGNORE_REMOTEID')) {
    // Nobody is to be asked for anything.
    reply(call, flags);
    return;
  }
  const judgement = judgementOf(front.parts, { client: connection.client, own: profile });
  const require = !hasFlag(flags, 'REQUEST_REMOTEID');
  const done = connection.postpone();
  const refuse = (error: V2Error): void => { done(); connection.refuse(frame, error); };
  const answered = (answer: EngineAnswer): void => {
    const failure = failureOf(answer, require);
    if (failure !== undefined) { refuse(failure); return; }
    done();
    reply(call, flags);
  };
  try {
    front.work.start({ session: session.number, judgement, answered, ended: () => { refuse(new V2Error('STIRRED_NOT_SHAKEN', 'the session has ended')); } },
      (request) => { front.parts.engine.reauthenticate(session.number, request, { require, context: judgement.context, ...(timeout > 0 && { timeoutMs: Math.min(timeout, 3_600_000) }) }); });
  } catch (error) {
    done();
    throw error;
  }
}

/** A certificate that was shown and not accepted is a failure, also where none would have been fine. */
function failureOf(answer: EngineAnswer, require: boolean): V2Error | undefined {
  if (answer.kind === 'reauthenticated') {
    if (answer.outcome === 'authenticated' || (answer.outcome === 'refused' && !require)) return undefined;
    return new V2Error('STIRRED_NOT_SHAKEN', answer.outcome === 'refused' ? 'the client showed no certificate' : `the certificate was not accepted: ${answer.authorizationError ?? 'unknown'}`);
  }
  const refusal = refusalOf(answer);
  return refusal.code === 'BAD_STATE' ? new V2Error('RENOGIATE_NOT_INTERRUPTABLE', refusal.message) : asV2Error(refusal, 'STIRRED_NOT_SHAKEN');
}

/** As after the first handshake: empty identities, no FORK. */
function reply({ connection, frame }: V2Call, flags: number): void {
  codec.patch(frame, 'head', { cmd: commands.STARTTLS });
  codec.patch(frame, 'starttls', { flags: (flags & ~startFlags.FORK) >>> 0, localid: '', remoteid: '' });
  connection.send(frame);
}
