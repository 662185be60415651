/** What a client may ask of its session: keying material, and the names in the certificates. */
import assert from 'node:assert/strict';
import { encodeMessage } from 'libtlspool/protocol';
import type { ReplyBody } from 'libtlspool/protocol';
import { infoReply } from 'tlspool/dist/api/info-reply.js';
import { SessionTable, isExporterLabel, namesOf } from 'tlspool/dist/session/index.js';
import { der, derAltNames, derAttribute, derCertificate, derName } from '../support/der.js';
import { benchForEach, established, root } from './api-support.js';
import type { TestClient , Bench} from './api-support.js';

const registered = ['client EAP encryption', 'ttls keying material', 'ttls challenge', 'EXTRACTOR-dtls_srtp', 'TLS_MK_Extr'];
const begins = ['EXPORTER-Channel-Binding', 'EXPORTER_DTLS_OVER_SCTP', 'EXPORTER: teap session key seed', 'EXPORTER_EAP_TLS_Key_Material', 'EXPORTERx', 'EXPERIMENTAL-x', 'EXPERIMENTALx'];
const reserved = ['client finished', 'server finished', 'master secret', 'key expansion', 'extended master secret'];

describe('labels of exporters', () => {
  for (const label of [...registered, ...begins, `EXPORTER${'x'.repeat(247)}`]) {
    it(`${JSON.stringify(label.slice(0, 40))} may be exported with`, () => { assert.equal(isExporterLabel(label), true); });
  }

  for (const label of [
    ...reserved, '', 'x', 'my label', 'EXPORTER', 'EXPERIMENTAL', 'exporter-x', 'EXPORT-x', ' EXPORTER-x', 'ttls challenger', 'ttls challenge ', 'EXTRACTOR-dtls_srtp2', 'EXTRACTOR',
    'EXPORTER-\u00e9', 'EXPORTER-\n', 'EXPORTER-\0', 'EXPORTER-\x7f', `EXPORTER${'x'.repeat(248)}`, 'res master', 'exp master', 'traffic upd', 'c ap traffic', 'derived',
  ]) {
    it(`${JSON.stringify(label.slice(0, 40))} may not`, () => { assert.equal(isExporterLabel(label), false); });
  }
});

describe('a session is asked', () => {
  let bench: Bench;
  benchForEach(() => bench, (made) => { bench = made; });

  async function open(client: TestClient, protocol: 'TLSv1.2' | 'TLSv1.3' = 'TLSv1.3'): Promise<Uint8Array> {
    bench.emit(established(await bench.startTls(client), { protocol }));
    return (await client.next()).body['ctlkey'] as Uint8Array;
  }

  const label = (octets: number): string => `EXPORTER${'x'.repeat(octets - 8)}`;

  // 255 is what the message table has room for.
  for (const [protocol, most] of [['TLSv1.2', 255], ['TLSv1.3', 249]] as const) {
    it(`over ${protocol} for an exporter with a label of ${most} octets`, async () => {
      const client = await bench.client();
      const ctlkey = await open(client, protocol);
      client.ask('prng', { ctlkey, label: label(most), length: 1 });
      await client.request('ping').catch(() => undefined);
      const [, , request, passed] = bench.engine.last('exporter');
      assert.equal(passed, label(most));
      bench.emit({ kind: 'answer', request: request as number, octets: Buffer.alloc(1) });
      assert.equal((await client.next()).message.type, 'reply');
    });
  }

  it('over TLSv1.3 for an exporter with a label of 250 octets: refused with the length, and the engine is not asked (RFC 8446 section 7.1)', async () => {
    const client = await bench.client();
    const ctlkey = await open(client, 'TLSv1.3');
    const { body } = await client.request('prng', { ctlkey, label: label(250), length: 1 });
    assert.deepEqual([body['code'], body['field']], ['EXPORTER', 'body.label']);
    assert.match(body['text'] as string, /250 octets; over TLSv1\.3 it may have 249/u);
    assert.equal(bench.engine.named('exporter').length, 0);
  });

  it('with a label that nobody registered: the refusal names it, escaped, and what to take instead', async () => {
    const client = await bench.client();
    const ctlkey = await open(client);
    const { body } = await client.request('prng', { ctlkey, label: 'my\u202elabel', length: 1 });
    assert.deepEqual([body['code'], body['field']], ['EXPORTER', 'body.label']);
    assert.match(body['text'] as string, /"my\\u\{202e\}label".*EXPORTER.*EXPERIMENTAL/u);
  });

  for (const [protocol, text] of [['TLSv1.2', /internal error; over TLS 1.2 label and context may have/u], ['TLSv1.3', /internal error$/u]] as const) {
    it(`over ${protocol} for an export that OpenSSL refuses: it is an error, and what can be done is said where it is known`, async () => {
      const client = await bench.client();
      const ctlkey = await open(client, protocol);
      client.ask('prng', { ctlkey, label: 'EXPORTER-x', context: Buffer.alloc(1000), length: 1 });
      await client.request('ping').catch(() => undefined);
      bench.emit({ kind: 'answer', request: bench.engine.last('exporter')[2] as number, code: 'EXPORTER', text: 'OpenSSL refuses the export: internal error' });
      const { body } = await client.next();
      assert.equal(body['code'], 'EXPORTER');
      assert.match(body['text'] as string, text);
    });
  }

  it('info has the names of both certificates', async () => {
    const client = await bench.client();
    const peer = derCertificate({ subject: derName([derAttribute('2.5.4.3', 'Alice')]), extensions: [derAltNames(der(0x81, 'alice@example.org'))] });
    const local = derCertificate({ subject: derName([derAttribute('2.5.4.3', 'www')]), issuer: derName([derAttribute('2.5.4.3', 'CA')]) });
    bench.emit(established(await bench.startTls(client), { peerCertificates: [peer, local], localCertificate: local }));
    const ctlkey = (await client.next()).body['ctlkey'] as Uint8Array;
    client.ask('info', { ctlkey });
    await client.request('ping').catch(() => undefined);
    bench.emit({ kind: 'answer', request: bench.engine.last('bindings')[2] as number, bindings: {} });
    const { body } = await client.next();
    assert.deepEqual(body['peerNames'], { subject: 'CN=Alice', issuer: '', subjectAltNames: ['email:alice@example.org'] });
    assert.deepEqual(body['localNames'], { subject: 'CN=www', issuer: 'CN=CA', subjectAltNames: [] });
  });

  it('info of a session without a certificate of the peer, and with one that is no DER, has no names of it', async () => {
    const client = await bench.client();
    const ctlkey = await open(client);
    client.ask('info', { ctlkey });
    await client.request('ping').catch(() => undefined);
    bench.emit({ kind: 'answer', request: bench.engine.last('bindings')[2] as number, bindings: {} });
    const { message, body } = await client.next();
    assert.equal(message.type, 'reply');
    assert.ok(!('peerNames' in body) && !('localNames' in body));
  });
});

describe('names beside certificates in one message', () => {
  const bindings = { tlsUnique: Buffer.alloc(64), tlsServerEndPoint: Buffer.alloc(64), tlsExporter: Buffer.alloc(32) };
  const certificate = (names: number): Buffer => derCertificate({ extensions: [derAltNames(...Array.from({ length: names }, () => der(0x82, 'x'.repeat(508))))] });
  const sizeOf = (body: ReplyBody<'info'>): number => encodeMessage({ type: 'reply', op: 'info', id: 0xffff_ffff, body }).length;
  const reply = (peer: Buffer, local: Buffer, messageOctets: number): ReplyBody<'info'> =>
    infoReply(new SessionTable(65_536).accept(established(1, { peerCertificates: [peer], localCertificate: local }), { client: root, sessions: new Set() }), bindings, messageOctets);

  it('our own are left out first, then those of the peer, to the octet', () => {
    const [peer, local] = [certificate(10), certificate(3)];
    const both = reply(peer, local, 65_536);
    assert.deepEqual([both.peerNames, both.localNames], [namesOf(peer), namesOf(local)]);
    assert.equal(reply(peer, local, sizeOf(both)).localNames?.subjectAltNames.length, 3);
    const one = reply(peer, local, sizeOf(both) - 1);
    assert.deepEqual([one.peerNames?.subjectAltNames.length, one.localNames], [10, undefined]);
    assert.equal(reply(peer, local, sizeOf(one)).peerNames?.subjectAltNames.length, 10);
    const none = reply(peer, local, sizeOf(one) - 1);
    assert.deepEqual([none.peerNames, none.localNames, none.info.peerCertificates.length], [undefined, undefined, 1]);
  });

  it('the largest reply that fits 4096 octets without names is sent without them', () => {
    const table = new SessionTable(4096);
    const name = 'x'.repeat(255);
    const endpoint = { family: 'IPv6', address: name, port: 65_535 } as const;
    const peer = derCertificate({ subject: derName([derAttribute('2.5.4.3', 'x'.repeat(600))]) });
    const session = table.accept(established(1, { peerCertificates: [peer, certificate(60)], localCertificate: certificate(60), servername: name, alpn: name, localid: name, remote: endpoint, local: endpoint }), { client: root, sessions: new Set() });
    const body = infoReply(session, bindings, 4096);
    assert.ok(sizeOf(body) <= 4096, `${sizeOf(body)}`);
    assert.equal(body.info.peerCertificates.length, 1);
  });

  it('the largest names there are fit into the default of 65,536 octets beside their certificate', () => {
    const peer = certificate(60);
    const body = reply(peer, Buffer.alloc(0), 65_536);
    assert.equal(body.peerNames?.subjectAltNames.length, 60);
    assert.ok(sizeOf(body) <= 65_536);
  });
});
