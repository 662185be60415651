/** Configurations of the proxy that are printed somewhere are good, and its tables say what the code says. */
import assert from 'node:assert/strict';
import { readFileSync, readdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { X509Certificate } from 'node:crypto';
import type { SessionInfo } from 'libtlspool/protocol';
import { loadProxyConfig } from 'tlspool-proxy/dist/config/load.js';
import { environmentOf } from 'tlspool-proxy/dist/handoff/environment.js';
import { encodeV2, parse } from 'tlspool-proxy/dist/proxyprotocol/index.js';
import { tlvType } from 'tlspool-proxy/dist/proxyprotocol/types.js';
import { tempFolder } from '../support/cleanup.js';
import { issue, makeCa } from '../support/pki.js';
import { repoRoot, run } from '../support/program.js';

const read = (file: string): string => readFileSync(path.join(repoRoot, file), 'utf8');
const examples = readdirSync(path.join(repoRoot, 'examples/proxy')).map((name) => `examples/proxy/${name}`);
const pages = ['README.md', ...readdirSync(path.join(repoRoot, 'docs/proxy')).map((name) => `docs/proxy/${name}`)];

/** As a file of an operator's, which nobody else may write. `exec` programs of documentation need not be here. */
function written(text: string): string {
  const file = path.join(tempFolder(), 'proxy.yaml');
  writeFileSync(file, text.replaceAll('/usr/local/bin/greeter', '/bin/cat'), { mode: 0o600 });
  return file;
}

describe('examples of the proxy', () => {
  it('are there, for each way to a backend', () => {
    const backends = examples.flatMap((file) => loadProxyConfig(written(read(file))).services).flatMap(({ routes }) => routes.map(({ backend }) => backend.handoff));
    assert.deepEqual([...new Set(backends)].sort(), ['connect', 'exec', 'fd']);
  });
  for (const file of examples) {
    it(`tlspool-proxy --check finds ${file} good`, async () => {
      const { stdout, stderr } = await run(process.execPath, [path.join(repoRoot, 'proxy/bin/tlspool-proxy.js'), '--check', '--config', written(read(file))]);
      assert.match(stdout, /: good, \d+ services? on \d+ address/u);
      assert.equal(stderr, '');
    });
  }
  for (const file of pages) {
    const configurations = [...read(file).matchAll(/^```yaml\n([^]*?)^```/gmu)].map(([, text = '']) => text).filter((text) => /^services:/mu.test(text));
    if (configurations.length === 0) continue;
    it(`the configurations of ${file} are good`, () => {
      for (const text of configurations) assert(loadProxyConfig(written(text)).services.length > 0);
    });
  }
  it('the access rules of docs/proxy/running.md are good, and give the proxy the role of a server only', async () => {
    const [, rules = ''] = /^```yaml\n(access:[^]*?)^```/mu.exec(read('docs/proxy/running.md')) ?? [];
    assert.match(rules, /roles: \[server\]/u);
    const file = path.join(tempFolder(), 'tlspool.yaml');
    // These users need not be here.
    writeFileSync(file, `state: state\n${rules.replaceAll(/uid: \S+/gu, 'uid: 0')}`, { mode: 0o600 });
    const { stdout } = await run(process.execPath, [path.join(repoRoot, 'daemon/bin/tlspoold.js'), '--check', '--config', file]);
    assert.match(stdout, /good/u);
  });
  it('the mail server of the example knows its clients: every backend of it gets a PROXY header that tells of TLS', () => {
    const { services } = loadProxyConfig(written(read('examples/proxy/dovecot-postfix.yaml')));
    for (const { routes: [{ backend }] } of services) assert(backend.handoff === 'connect' && backend.proxyProtocol === 2);
  });
});

describe('documentation of the proxy: tables', () => {
  let der: Buffer;
  before(async () => {
    const folder = tempFolder();
    const { certFile } = await issue(await makeCa(path.join(folder, 'ca')), path.join(folder, 'leaf'), { commonName: 'A Client', sans: ['DNS:client'] });
    der = new X509Certificate(readFileSync(certFile)).raw;
  });
  const info = (): SessionInfo => ({
    role: 'server', protocol: 'TLSv1.3', cipher: 'TLS_AES_128_GCM_SHA256', cipherName: 'TLS_AES_128_GCM_SHA256', group: 'x25519', servername: 'mail.example', alpn: 'imap', localid: 'mail', resumed: false,
    authorized: true, peerCertificates: [der], localCertificate: der,
  });
  const end = { family: 'IPv4', address: '192.0.2.7', port: 4 } as const;
  const rows = (file: string, start: string): string[] => (read(file).split(start)[1] ?? '').split('\n\n')[0]?.split('\n') ?? [];

  it('docs/proxy/exec.md has every variable of a program, and no other', () => {
    const [, table = ''] = /<!-- environment -->\n([^]*?)<!-- end -->/u.exec(read('docs/proxy/exec.md')) ?? [];
    const named = table.split('\n').flatMap((line) => [...(line.split('|')[1] ?? '').matchAll(/`([A-Z_]+)`/gu)].map(([, name = '']) => name));
    assert.deepEqual(named.sort(), [...Object.keys(environmentOf({ info: info(), remote: end, local: end })), 'LISTEN_PID'].sort());
  });
  it('docs/proxy/connect.md has every TLV that a header may have, by its number', () => {
    const named = rows('docs/proxy/connect.md', '| TLV | type |').flatMap((line) => [...line.matchAll(/\| (0x[0-9a-f]{2}) \|/gu)].map(([, type]) => Number(type)));
    // We send no unique id, which nobody could look up anywhere, and no padding.
    assert.deepEqual(named.sort((a, b) => a - b), Object.entries(tlvType).filter(([name]) => name !== 'uniqueId' && name !== 'noop').map(([, type]) => type).sort((a, b) => a - b));
  });
  it('a header for LOCAL has no TLV, as docs/proxy/connect.md says, and one for a client without TLS has the checksum alone', () => {
    assert.equal(encodeV2({ command: 'LOCAL' }).length, 16);
    const header = parse(encodeV2({ command: 'PROXY', addresses: { source: end, destination: end } }));
    assert.equal(header.kind, 'header');
    assert.equal(encodeV2({ command: 'PROXY', addresses: { source: end, destination: end } }).length, 16 + 12 + 7);
  });
});
