/**
 * The thread that opens one PKCS#12 file (RFC 7292) and ends. Deriving keys by hundreds of thousands of iterations, as browsers export them, takes seconds, which the
 * pool's own thread does not have. The library works on JavaScript strings, which cannot be wiped: they end with this thread's heap, whose pages V8 may keep (docs/security.md).
 */
import { parentPort, workerData } from 'node:worker_threads';
import forge from 'node-forge';
import type { pkcs12 as Pkcs12, asn1 as Asn1 } from 'node-forge';
import type { Contents, Sealed, Unopened } from './pkcs12-open.js';

const { asn1, pki, pkcs12, util } = forge;

/** What forge knows of a bag: it parses what is RSA, and hands the rest out as ASN.1. */
type Bag = Partial<Pick<Pkcs12.Bag, 'key' | 'cert' | 'asn1'>>;

/** With memory of its own, which moves to the receiver. */
function toDer(node: Asn1.Asn1): Uint8Array<ArrayBuffer> {
  const text = asn1.toDer(node).getBytes();
  return Uint8Array.from({ length: text.length }, (_, index) => text.charCodeAt(index));
}

function keyOf({ key, asn1: raw }: Bag): Uint8Array<ArrayBuffer> {
  if (key) return toDer(pki.wrapRsaPrivateKey(pki.privateKeyToAsn1(key)));
  if (raw === undefined) throw new Error('a private key in it cannot be read');
  return toDer(raw);
}

const certificateOf = ({ cert, asn1: raw }: Bag): readonly Uint8Array<ArrayBuffer>[] => (cert ? [toDer(pki.certificateToAsn1(cert))] : raw === undefined ? [] : [toDer(raw)]);

function open({ octets, password }: Sealed): Contents {
  const text = (all: Uint8Array): string => Buffer.from(all.buffer, all.byteOffset, all.length).toString('latin1');
  const pfx = pkcs12.pkcs12FromAsn1(asn1.fromDer(util.createBuffer(text(octets))), text(password));
  const bagsOf = (bagType = ''): readonly Bag[] => pfx.getBags({ bagType })[bagType] ?? [];
  const { oids } = pki;
  return {
    keys: [...bagsOf(oids['pkcs8ShroudedKeyBag']), ...bagsOf(oids['keyBag'])].map(keyOf),
    certificates: bagsOf(oids['certBag']).flatMap(certificateOf),
  };
}

try {
  const contents = open(workerData as Sealed);
  parentPort?.postMessage(contents, [...contents.keys, ...contents.certificates].map(({ buffer }) => buffer));
} catch (error) {
  const unopened: Unopened = { fault: 'file', reason: (error as Error).message };
  parentPort?.postMessage(unopened);
}
