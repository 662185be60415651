/** INFO: names in the certificates of a session, and channel bindings. */
import { derNamesOf, factsOf } from '../session/index.js';
import type { Session } from '../session/index.js';
import { attached } from './control.js';
import type { V2Call } from './dispatch.js';
import { V2Error } from './errors.js';
import { arms, codec } from './frames.js';

const { size: bufferOctets } = arms.info.buffer;
/** Instead of a length: tell me. With a length: is it this? */
const query = 0xffff;

type Side = 'peer' | 'local';
type Part = 'subject' | 'issuer' | 'subjectAltName';
const certificateKinds: ReadonlyMap<number, readonly [Side, Part]> = new Map<number, readonly [Side, Part]>([
  [0x5280_0000, ['peer', 'subject']], [0x5280_0001, ['peer', 'issuer']], [0x5280_0002, ['peer', 'subjectAltName']],
  [0x5280_0100, ['local', 'subject']], [0x5280_0101, ['local', 'issuer']], [0x5280_0102, ['local', 'subjectAltName']],
]);
const tlsUnique = 0x5929_0000;
/** Known, and never answered: the original never does, and its programs do without. */
const tlsServerEndPoint = 0x5929_0001;

export function info(call: V2Call): void {
  const { v2, connection, frame } = call;
  const { ctlkey, kind, len, buffer } = codec.read(frame, 'info');
  const session = attached(v2, connection, ctlkey);
  if (len > bufferOctets && len !== query) throw new V2Error('COMMAND_NOTIMPL', `${len} octets do not fit`);
  const certificateKind = certificateKinds.get(kind);
  if (certificateKind !== undefined) {
    if (certificateKind[1] === 'subjectAltName') checkName(call, session, certificateKind[0], len === query ? undefined : buffer.subarray(0, len));
    else if (len !== query) throw new V2Error('INFO_NOT_FOUND');
    else reply(call, nameOf(session, ...certificateKind));
  } else if (kind === tlsUnique && len === query) {
    askTlsUnique(call, session);
  } else {
    throw new V2Error(kind === tlsUnique || kind === tlsServerEndPoint ? 'INFO_NOT_FOUND' : 'INFOKIND_UNKNOWN');
  }
}

function certificateOf(session: Session, side: Side): Uint8Array {
  const { profile, peerCertificates } = factsOf(session);
  const der = side === 'peer' ? peerCertificates[0] : profile.localCertificate;
  if (der === undefined) throw new V2Error('INFO_NOT_FOUND');
  return der;
}

function namesIn(session: Session, side: Side): ReturnType<typeof derNamesOf> {
  const der = certificateOf(session, side);
  try {
    return derNamesOf(der);
  } catch {
    // TLS has accepted it, and we cannot read it: as good as not there.
    throw new V2Error('INFO_NOT_FOUND');
  }
}

function nameOf(session: Session, side: Side, part: Part): Uint8Array {
  const names = namesIn(session, side);
  return part === 'issuer' ? names.issuer : names.subject;
}

/** One complete GeneralName, to the octet. A match is answered by the request itself. */
function checkName({ connection, frame }: V2Call, session: Session, side: Side, wanted: Uint8Array | undefined): void {
  const names = namesIn(session, side).subjectAltNames;
  if (wanted === undefined || !names.some((name) => Buffer.compare(name, wanted) === 0)) throw new V2Error('INFO_NOT_FOUND');
  connection.send(frame);
}

function reply({ connection, frame }: V2Call, octets: Uint8Array): void {
  if (octets.length > bufferOctets) throw new V2Error('INFO_NOT_FOUND', `${octets.length} octets do not fit`);
  codec.patch(frame, 'info', { len: octets.length, buffer: Buffer.from(octets) });
  connection.send(frame);
}

/** RFC 5929 section 3: there is none on TLS 1.3. */
function askTlsUnique(call: V2Call, { number }: Session): void {
  const { v2: { front }, connection, frame } = call;
  const done = connection.postpone();
  const refuse = (error: V2Error): void => { done(); connection.refuse(frame, error); };
  try {
    front.work.start({
      session: number,
      answered: (answer) => {
        const octets = 'bindings' in answer ? answer.bindings.tlsUnique : undefined;
        if (octets === undefined) refuse(new V2Error('INFO_NOT_FOUND'));
        else { done(); reply(call, octets); }
      },
      ended: () => { refuse(new V2Error('CTLKEY_NOT_FOUND')); },
    }, (request) => { front.parts.engine.bindings(number, request); });
  } catch (error) {
    done();
    throw error;
  }
}
