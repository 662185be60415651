/** What a PROXY header says of a TLS session, from real certificates. */
import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import type { SessionInfo } from 'libtlspool/protocol';
import { encodeV2, parse, tlsFactsOf } from 'tlspool-proxy/dist/proxyprotocol/index.js';
import { tempFolder } from '../support/cleanup.js';
import { throwsCode } from '../support/native-fds.js';
import { issue, makeCa } from '../support/pki.js';
import { needProgram, run } from '../support/program.js';

const derOf = (file: string): Buffer => new X509Certificate(readFileSync(file)).raw;

/** A self-signed certificate as the openssl command makes it. */
async function made(subject: string, key: readonly string[]): Promise<Buffer> {
  const folder = tempFolder();
  const file = path.join(folder, 'c.pem');
  await run(needProgram('openssl', 'openssl'), ['req', '-x509', '-utf8', '-newkey', ...key, '-nodes', '-keyout', path.join(folder, 'k.pem'), '-out', file, '-subj', subject]);
  return derOf(file);
}
const ec = ['ec', '-pkeyopt', 'ec_paramgen_curve:P-384'];

describe('PROXY protocol: what is said of TLS', () => {
  let own: Buffer;
  let peer: Buffer;
  let base: SessionInfo;

  before(async () => {
    const folder = tempFolder();
    const ca = await makeCa(path.join(folder, 'ca'));
    own = derOf((await issue(ca, path.join(folder, 'own'), { commonName: 'server.example', sans: ['DNS:server.example'], keyType: 'rsa' })).certFile);
    peer = derOf((await issue(ca, path.join(folder, 'peer'), { commonName: 'alice', sans: [], usage: 'clientAuth' })).certFile);
    base = { role: 'server', protocol: 'TLSv1.3', cipher: 'TLS_AES_128_GCM_SHA256', cipherName: 'TLS_AES_128_GCM_SHA256', resumed: false, authorized: false, peerCertificates: [] };
  });

  /** What a receiver reads. */
  const received = (info: SessionInfo) => {
    const parsed = parse(encodeV2({ command: 'PROXY', tls: tlsFactsOf(info) }));
    assert(parsed.kind === 'header');
    return parsed.header;
  };

  it('protocol, the cipher in OpenSSL\'s spelling, ALPN and SNI', () => {
    const header = received({ ...base, protocol: 'TLSv1.2', cipher: 'TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256', cipherName: 'ECDHE-RSA-AES128-GCM-SHA256', alpn: 'h2', servername: 'a.example' });
    assert.deepEqual([header.alpn, header.authority, header.ssl?.protocol, header.ssl?.cipher], ['h2', 'a.example', 'TLSv1.2', 'ECDHE-RSA-AES128-GCM-SHA256']);
  });

  it('no certificate: not shown, and not verified', () => {
    const { ssl } = received(base);
    assert.deepEqual(ssl, { tls: true, certConn: false, certSess: false, verify: 1, protocol: 'TLSv1.3', cipher: 'TLS_AES_128_GCM_SHA256' });
  });

  it('no certificate is not verified even where the session says it is', () => {
    assert.notEqual(received({ ...base, authorized: true }).ssl?.verify, 0);
  });

  it('a verified certificate: shown on the connection, verify 0, and its common name', () => {
    const { ssl } = received({ ...base, authorized: true, peerCertificates: [peer] });
    assert.deepEqual([ssl?.certConn, ssl?.certSess, ssl?.verify, ssl?.commonName], [true, true, 0, 'alice']);
  });

  it('the same in a resumed session: shown in the session only', () => {
    const { ssl } = received({ ...base, authorized: true, resumed: true, peerCertificates: [peer] });
    assert.deepEqual([ssl?.certConn, ssl?.certSess, ssl?.verify, ssl?.commonName], [false, true, 0, 'alice']);
  });

  it('a certificate that failed verification never has verify 0, whatever the reason is called', () => {
    for (const [name, number] of [['CERT_HAS_EXPIRED', 10], ['DEPTH_ZERO_SELF_SIGNED_CERT', 18], ['CERT_REJECTED', 28], ['CERT_VERIFICATION_FAILED', 1], ['OK', 1], ['toString', 1], [undefined, 1]] as const) {
      const { ssl } = received({ ...base, ...(name !== undefined && { authorizationError: name }), peerCertificates: [peer] });
      assert.deepEqual([ssl?.certConn, ssl?.verify], [true, number], name);
    }
  });

  it('a name in UTF-8 is passed on as it is', async () => {
    const der = await made('/CN=Zoë Грин', ec);
    assert.equal(received({ ...base, authorized: true, peerCertificates: [der] }).ssl?.commonName, 'Zoë Грин');
  });

  it('of a subject with two common names, or none, no name is told', async () => {
    for (const subject of ['/CN=admin/CN=guest', '/O=nobody']) {
      const { ssl } = received({ ...base, authorized: true, peerCertificates: [await made(subject, ec)] });
      assert.deepEqual([ssl?.commonName, ssl?.verify, ssl?.certConn], [undefined, 0, true], subject);
    }
  });

  it('our own certificate: how it is signed and what key it has', async () => {
    const algorithms = (localCertificate: Uint8Array) => {
      const { ssl } = received({ ...base, localCertificate });
      return [ssl?.signatureAlgorithm, ssl?.keyAlgorithm];
    };
    assert.deepEqual(algorithms(own), ['ecdsa-with-SHA256', 'RSA2048']);
    assert.deepEqual(algorithms(await made('/CN=x', ec)), ['ecdsa-with-SHA256', 'EC384']);
    assert.deepEqual(algorithms(await made('/CN=x', ['rsa:3072', '-sha384'])), ['RSA-SHA384', 'RSA3072']);
    assert.deepEqual(algorithms(await made('/CN=x', ['ed25519'])), ['ED25519', undefined]);
  });

  it('what is no certificate adds nothing, and breaks nothing', () => {
    for (const octets of [Buffer.alloc(0), Buffer.from('3082', 'hex'), Buffer.from('30843fffffff', 'hex'), Buffer.from('308200', 'hex'), peer.subarray(0, 100), Buffer.from('308900112233445566778899', 'hex')]) {
      const { ssl } = received({ ...base, localCertificate: octets, peerCertificates: [octets] });
      assert.deepEqual([ssl?.signatureAlgorithm, ssl?.keyAlgorithm, ssl?.commonName, ssl?.verify, ssl?.certConn], [undefined, undefined, undefined, 1, true]);
    }
  });

  it('a session in which we are the client is refused: its peer is a server', () => {
    throwsCode(() => tlsFactsOf({ ...base, role: 'client' }), 'BAD_ARGUMENT');
  });
});
