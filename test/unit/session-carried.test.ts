/** What peers choose, made to fit into messages. */
import assert from 'node:assert/strict';
import { TlsPoolError, encodeMessage, fitText } from 'libtlspool/protocol';
import type { Message, SessionInfo } from 'libtlspool/protocol';
import { SessionTable, carriedEndpoint, factsOf, otherOctets, sessionInfoOf, withFittingCertificates } from 'tlspool/dist/session/index.js';
import { established, root } from './api-support.js';

const certificates = (...sizes: readonly number[]): Buffer[] => sizes.map((size, n) => Buffer.alloc(size, n + 1));
const sizes = ({ peerCertificates }: { readonly peerCertificates: readonly Uint8Array[] }): number[] => peerCertificates.map(({ length }) => length);
const name = 'x'.repeat(255);
const endpoint = { family: 'IPv6', address: name, port: 65_535 } as const;

/** The largest message with this session's information: the answer to `info`. */
function infoMessage(info: SessionInfo): Message {
  return {
    type: 'reply', op: 'info', id: 0xffff_ffff,
    body: { info, tlsUnique: Buffer.alloc(64), tlsServerEndPoint: Buffer.alloc(64), tlsExporter: Buffer.alloc(32) },
  };
}

function infoOf(changed: Parameters<typeof established>[1], messageOctets: number): SessionInfo {
  const table = new SessionTable(messageOctets);
  return sessionInfoOf(factsOf(table.accept(established(1, changed), { client: root, sessions: new Set() })));
}

describe('certificates in messages', () => {
  it('all that is not a certificate fits into the octets that are set aside for it', () => {
    const info = {
      ...infoOf({ servername: name, alpn: name, localid: name, remote: endpoint, local: endpoint, localCertificate: Buffer.alloc(0) }, 65_536),
      cipher: 'x'.repeat(64), cipherName: 'x'.repeat(64), group: 'x'.repeat(64), authorizationError: 'x'.repeat(64), revision: 0xffff_ffff,
    };
    const { length } = encodeMessage(infoMessage(info));
    assert.ok(length <= otherOctets, `${length}`);
    assert.ok(length > otherOctets / 2, 'not much more than needed is set aside');
  });

  it('what fits is left as it is', () => {
    const event = established(1, { peerCertificates: certificates(1000, 1000, 1000) });
    assert.equal(withFittingCertificates(event, 65_536), event);
  });

  it('issuers are left out from the end for as long as there is no room, to the octet', () => {
    const peerCertificates = certificates(2000, 3000, 4000, 100);
    const needed = otherOctets + 2000 + 3000 + 4000 + 3 * 3;
    const fit = (octets: number): number[] => sizes(withFittingCertificates(established(1, { peerCertificates, localCertificate: Buffer.alloc(0) }), octets));
    assert.deepEqual(fit(needed + 3), [2000, 3000, 4000], 'none is left out in the middle');
    assert.deepEqual(fit(needed + 3 - 1), [2000, 3000]);
  });

  it('our own certificate comes after the leaf of the peer, and before its issuers', () => {
    const fit = (octets: number): [number[], number | undefined] => {
      const event = withFittingCertificates(established(1, { peerCertificates: certificates(2000, 3000), localCertificate: Buffer.alloc(1000) }), octets);
      return [sizes(event), event.localCertificate?.length];
    };
    assert.deepEqual(fit(otherOctets + 6000 + 9), [[2000, 3000], 1000]);
    assert.deepEqual(fit(otherOctets + 6000 + 8), [[2000], 1000]);
    assert.deepEqual(fit(otherOctets + 3000 + 6), [[2000], 1000]);
    assert.deepEqual(fit(otherOctets + 3000 + 5), [[2000], undefined]);
  });

  it('not more than 16, and none over 32,768 octets but the leaf, which is never left out', () => {
    const fit = (...lengths: number[]): number[] => sizes(withFittingCertificates(established(1, { peerCertificates: certificates(...lengths) }), 1_000_000));
    assert.equal(fit(...Array.from({ length: 17 }, () => 10)).length, 16);
    assert.deepEqual(fit(10, 32_768, 10), [10, 32_768, 10]);
    assert.deepEqual(fit(10, 32_769, 10), [10]);
    assert.deepEqual(fit(32_769), [32_769]);
  });

  it('our own certificate of more than a message carries is left out, one of 32,768 octets is not', () => {
    for (const [length, expected] of [[32_768, 32_768], [32_769, undefined]] as const) {
      assert.equal(withFittingCertificates(established(1, { localCertificate: Buffer.alloc(length) }), 131_072).localCertificate?.length, expected);
    }
  });

  for (const octets of [4096, 65_536, 131_072]) {
    it(`the longest chain there is makes no message over ${octets} octets, and what is left out is not kept in memory`, () => {
      const leaf = Math.min(32_768, octets - otherOctets - 3);
      const info = infoOf({ servername: name, alpn: name, localid: name, remote: endpoint, local: endpoint, peerCertificates: certificates(leaf, ...Array.from({ length: 15 }, () => 32_768)), localCertificate: Buffer.alloc(32_768) }, octets);
      assert.ok(encodeMessage(infoMessage(info), octets).length <= octets);
      assert.equal(info.peerCertificates[0]?.length, leaf);
    });
  }
});

describe('names and addresses in messages', () => {
  it('names of the peer are carried whatever is in them, and never as another valid name', () => {
    const info = infoOf({ servername: '\ufeffwww.example.org', alpn: 'h2\0', remote: { family: 'unix', address: `/\ud800${'\ufffd'.repeat(107)}`, port: 0 } }, 65_536);
    assert.doesNotThrow(() => encodeMessage(infoMessage(info)));
    assert.equal(info.servername, '\ufffdwww.example.org');
    assert.equal(info.alpn, 'h2\ufffd');
    assert.ok(Buffer.byteLength(info.remote?.address ?? '') <= 255);
  });

  it('good ones are carried as they are', () => {
    const info = infoOf({ servername: 'www.example.org', alpn: 'h2', remote: { family: 'unix', address: '/run/x', port: 0 } }, 65_536);
    assert.deepEqual([info.servername, info.alpn, info.remote?.address], ['www.example.org', 'h2', '/run/x']);
    assert.deepEqual(carriedEndpoint({ family: 'unix', address: '\0abstract', port: 0 }), { family: 'unix', address: '', port: 0 });
    assert.equal(carriedEndpoint(endpoint), endpoint);
  });

  it('an error whose text nobody foresaw reaches the client', () => {
    const text = `\ufeff\0${'\ud800'.repeat(3000)}`;
    const message: Message = { type: 'error', op: 'x', id: 1, body: { code: 'INTERNAL', text: fitText(new TlsPoolError('INTERNAL', { text }).message, 2048) } };
    assert.doesNotThrow(() => encodeMessage(message));
  });
});
