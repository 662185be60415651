/** PRNG: the exporter of RFC 5705 and RFC 8446 section 7.5. */
import { refusalOf } from '../api/work.js';
import { isExporterLabel } from '../session/index.js';
import { attached } from './control.js';
import type { V2Call } from './dispatch.js';
import { V2Error, asV2Error } from './errors.js';
import { arms, codec } from './frames.js';
import { mayStartTls } from './ping.js';

const { size: bufferOctets } = arms.prng.buffer;
const { size: ctlkeyOctets } = arms.info.ctlkey;

interface Asked { readonly ctlkey: Buffer; readonly label: string; readonly context: Buffer | null; readonly length: number }

export function prng(call: V2Call): void {
  const { v2, connection, frame } = call;
  if (!mayStartTls(v2, connection.client)) throw new V2Error('FACILITY_STARTTLS');
  const { ctlkey, label, context, length } = parse(frame);
  const { number } = attached(v2, connection, ctlkey);
  if (length < 0) throw new V2Error('EINVAL', `${length} octets cannot be made`);
  if (length === 0) {
    reply(call, Buffer.alloc(0));
    return;
  }
  const done = connection.postpone();
  const refuse = (error: V2Error): void => { done(); connection.refuse(frame, error); };
  try {
    v2.front.work.start({
      session: number,
      answered: (answer) => {
        if (!('octets' in answer)) refuse(asV2Error(refusalOf(answer), 'PRNG_UNAVAILABLE'));
        else { done(); reply(call, answer.octets); }
      },
      ended: () => { refuse(new V2Error('CTLKEY_NOT_FOUND')); },
    }, (request) => { v2.front.parts.engine.exporter(number, request, label, context, length); });
  } catch (error) {
    done();
    throw asV2Error(error, 'PRNG_UNAVAILABLE');
  }
}

/** The request puts three things into one buffer: control key, label, context. */
function parse(frame: Buffer): Asked {
  const { in1Len, in2Len, prngLen, buffer } = codec.read(frame, 'prng');
  const contextOctets = Math.max(in2Len, 0);
  if (in1Len <= 0 || prngLen > bufferOctets || ctlkeyOctets + in1Len + contextOctets > bufferOctets) {
    throw new V2Error('PRNG_UNAVAILABLE', `label of ${in1Len} octets, context of ${in2Len}, ${prngLen} wanted`);
  }
  const labelEnd = ctlkeyOctets + in1Len;
  const label = buffer.toString('latin1', ctlkeyOctets, labelEnd);
  if (!isExporterLabel(label)) throw new V2Error('PRNG_UNAVAILABLE', 'this label is not allowed; take one that begins with EXPERIMENTAL');
  return {
    // Copies: the reply overwrites the buffer.
    ctlkey: Buffer.from(buffer.subarray(0, ctlkeyOctets)), label, length: prngLen,
    context: in2Len < 0 ? null : Buffer.from(buffer.subarray(labelEnd, labelEnd + contextOctets)),
  };
}

function reply({ connection, frame }: V2Call, octets: Buffer): void {
  const buffer = Buffer.alloc(bufferOctets);
  octets.copy(buffer);
  codec.patch(frame, 'prng', { buffer });
  connection.send(frame);
}
