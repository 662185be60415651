/** The reply to `info`. */
import { encodeMessage } from 'libtlspool/protocol';
import type { ReplyBody } from 'libtlspool/protocol';
import { factsOf, namesOf, sessionInfoOf } from '../session/index.js';
import type { CertificateNames, Session } from '../session/index.js';

type InfoBody = ReplyBody<'info'>;
type Bindings = Pick<InfoBody, 'tlsUnique' | 'tlsServerEndPoint' | 'tlsExporter'>;

/** The longest there is, for measuring. */
const anyId = 0xffff_ffff;

/**
 * What is known of the session, with the names in the two certificates. They are read from the certificates, when somebody asks; where they do not fit beside the certificates they
 * are left out, our own first, since whoever has a certificate can read its names.
 */
export function infoReply(session: Session, bindings: Bindings, messageOctets: number): InfoBody {
  const bare: InfoBody = { info: sessionInfoOf(factsOf(session)), ...bindings };
  const peerNames = namesIn(bare.info.peerCertificates[0]);
  const localNames = namesIn(bare.info.localCertificate);
  const withPeer: InfoBody = { ...bare, ...(peerNames !== undefined && { peerNames }) };
  const withBoth: InfoBody = { ...withPeer, ...(localNames !== undefined && { localNames }) };
  return [withBoth, withPeer].find((body) => fits(body, messageOctets)) ?? bare;
}

/** A certificate that OpenSSL has accepted and that is no DER has no names that two programs would agree on. */
function namesIn(certificate: Uint8Array | undefined): CertificateNames | undefined {
  if (certificate === undefined) return undefined;
  try {
    return namesOf(certificate);
  } catch {
    return undefined;
  }
}

function fits(body: InfoBody, messageOctets: number): boolean {
  try {
    encodeMessage({ type: 'reply', op: 'info', id: anyId, body }, messageOctets);
    return true;
  } catch {
    return false;
  }
}
