/** DER by hand, for certificates that no library would make. */

/** One element: identifier octet and content. */
export function der(tag: number, ...content: readonly (Uint8Array | string)[]): Buffer {
  const inner = Buffer.concat(content.map((part) => (typeof part === 'string' ? Buffer.from(part) : part)));
  return Buffer.concat([Buffer.from([tag]), derLength(inner.length), inner]);
}

function derLength(length: number): Buffer {
  if (length < 0x80) return Buffer.from([length]);
  const octets: number[] = [];
  for (let rest = length; rest > 0; rest = Math.floor(rest / 256)) octets.unshift(rest % 256);
  return Buffer.from([0x80 + octets.length, ...octets]);
}

/** OBJECT IDENTIFIER from dotted decimals. */
export function derOid(dotted: string): Buffer {
  const [first = 0n, second = 0n, ...rest] = dotted.split('.').map(BigInt);
  return der(0x06, Buffer.from([first * 40n + second, ...rest].flatMap(base128)));
}

function base128(arc: bigint): number[] {
  const octets = [Number(arc & 0x7fn)];
  for (let left = arc >> 7n; left > 0n; left >>= 7n) octets.unshift(Number(left & 0x7fn) | 0x80);
  return octets;
}

/** AttributeTypeAndValue: the type in dotted decimals, and the whole value or a UTF8String. */
export const derAttribute = (type: string, value: Uint8Array | string): Buffer => der(0x30, derOid(type), typeof value === 'string' ? der(0x0c, value) : value);

/** Name: each list is one relative distinguished name. */
export const derName = (...rdns: readonly (readonly Uint8Array[])[]): Buffer => der(0x30, ...rdns.map((attributes) => der(0x31, ...attributes)));

export interface DerCertificateParts {
  readonly subject?: Uint8Array;
  readonly issuer?: Uint8Array;
  /** Whole extensions. */
  readonly extensions?: readonly Uint8Array[];
  /** Comes last in tbsCertificate. */
  readonly more?: Uint8Array;
}

/** subjectAltName with these GeneralNames. */
export const derAltNames = (...names: readonly Uint8Array[]): Buffer => der(0x30, derOid('2.5.29.17'), der(0x04, der(0x30, ...names)));

/** Something in the shape of a certificate; its key and signature are none. */
export function derCertificate({ subject = derName(), issuer = derName(), extensions, more = Buffer.alloc(0) }: DerCertificateParts = {}): Buffer {
  const algorithm = der(0x30, derOid('1.2.840.10045.4.3.2'));
  const key = der(0x30, algorithm, der(0x03, Buffer.alloc(3)));
  const tbs = der(0x30,
    der(0xa0, der(0x02, Buffer.from([2]))), der(0x02, Buffer.from([1])), algorithm, issuer, der(0x30, der(0x17, '250101000000Z'), der(0x17, '350101000000Z')), subject, key,
    ...(extensions === undefined ? [] : [der(0xa3, der(0x30, ...extensions))]), more);
  return der(0x30, tbs, algorithm, der(0x03, Buffer.alloc(3)));
}
