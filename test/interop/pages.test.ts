import assert from 'node:assert/strict';
import { X509Certificate, createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import type { TLSSocket } from 'node:tls';
import path from 'node:path';
import { curl, expectBaseline, needProgram, nodeGet, run, sClientArgs, serve, startPool, tempFolder } from '../support/index.js';
import type { Baseline, Served, Target, TestPool } from '../support/index.js';

const page = (socket: TLSSocket): string => `<!doctype html><title>tlspool</title><p id="it">served by the pool over ${String(socket.getProtocol())}</p>`;
const request = 'GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n';
const versions = ['1.2', '1.3'] as const;

describe('a page behind the pool is loaded by programs that are not ours', function () {
  this.timeout(60_000);
  let pool: TestPool;
  let baseline: Baseline;
  let served: Served;
  let ec: Target;
  let rsa: Target;

  before(async () => {
    pool = await startPool({
      identities: [
        { localid: 'localhost', policy: 'intermediate', default: true }, { localid: 'rsa.test', policy: 'intermediate', keyType: 'rsa' },
        { localid: 'modern.test', policy: 'modern' },
      ],
    });
    const server = http.createServer((req, res) => {
      res.setHeader('content-type', 'text/html');
      res.end(page(req.socket as TLSSocket));
    });
    served = await serve(pool, server);
    ec = { port: served.port, caFile: pool.caFile };
    rsa = { ...ec, servername: 'rsa.test' };
    baseline = pool.baseline();
  });

  after(async () => {
    await served.close();
    await pool.stop();
  });

  for (const version of versions) {
    for (const keyType of ['ECDSA', 'RSA'] as const) {
      const target = (): Target => (keyType === 'RSA' ? rsa : ec);

      it(`curl, TLS ${version}, ${keyType} certificate`, async () => {
        const { stdout } = await curl(target(), '/', [`--tlsv${version}`, '--tls-max', version]);
        assert.match(stdout, new RegExp(`over TLSv${version}<`, 'u'));
      });

      it(`openssl s_client, TLS ${version}, ${keyType} certificate`, async () => {
        const args = sClientArgs(target(), [`-tls${version.replace('.', '_')}`, '-ign_eof']);
        const { stdout } = await run(needProgram('openssl', 'openssl'), args, { input: request });
        assert.match(stdout, new RegExp(`over TLSv${version}<`, 'u'));
        assert.match(stdout, /Verify return code: 0 \(ok\)/u);
      });

      it(`gnutls-cli, TLS ${version}, ${keyType} certificate`, async () => {
        const name = target().servername ?? 'localhost';
        const { stdout } = await run(needProgram('gnutls-cli', 'gnutls-bin'), [
          '--x509cafile', pool.caFile, '--priority', `NORMAL:-VERS-ALL:+VERS-TLS${version}`, '--sni-hostname', name, '--verify-hostname', name,
          '-p', String(served.port), '127.0.0.1',
        ], { input: request });
        assert.match(stdout, new RegExp(`over TLSv${version}<`, 'u'));
        assert.match(stdout, /The certificate is trusted/u);
      });

      it(`node:https, TLS ${version}, ${keyType} certificate`, async () => {
        const { status, body } = await nodeGet(target(), '/', { minVersion: `TLSv${version}`, maxVersion: `TLSv${version}` });
        assert.equal(status, 200);
        assert.match(body, new RegExp(`over TLSv${version}<`, 'u'));
      });
    }

    it(`Node's fetch, TLS ${version}, with the CA in NODE_EXTRA_CA_CERTS`, async () => {
      const program = `const r = await fetch('https://localhost:${String(served.port)}/'); console.log(await r.text());`;
      const { stdout } = await run(process.execPath, [
        `--tls-min-v${version}`, `--tls-max-v${version}`, '--dns-result-order=ipv4first', '--input-type=module', '-e', program,
      ], { env: { NODE_EXTRA_CA_CERTS: pool.caFile } });
      assert.match(stdout, new RegExp(`over TLSv${version}<`, 'u'));
    });
  }

  it('Node\'s fetch refuses the page without the CA', async () => {
    const program = `try { await fetch('https://localhost:${String(served.port)}/'); } catch (e) { console.log(e.cause.code); }`;
    const { stdout } = await run(process.execPath, ['--dns-result-order=ipv4first', '--input-type=module', '-e', program], { env: { NODE_EXTRA_CA_CERTS: '' } });
    assert.match(stdout, /UNABLE_TO_VERIFY_LEAF_SIGNATURE|SELF_SIGNED_CERT_IN_CHAIN|UNABLE_TO_GET_ISSUER/u);
  });

  it('headless Chromium shows the page, over TLS 1.3', async () => {
    assert.match(await chromium(pool, served.port, 'localhost'), /served by the pool over TLSv1\.3/u);
  });

  it('headless Chromium shows no page when the certificate is not the one it was told to trust', async () => {
    // The twin of the test above: it is the certificate of the pool, and nothing else, that made the browser accept.
    assert.doesNotMatch(await chromium(pool, served.port, 'rsa.test'), /served by the pool/u);
  });

  it('a modern identity serves TLS 1.3 and refuses TLS 1.2', async () => {
    const modern = { ...ec, servername: 'modern.test' };
    assert.match((await curl(modern, '/', ['--tlsv1.3'])).stdout, /over TLSv1\.3</u);
    const refused = await curl(modern, '/', ['--tlsv1.2', '--tls-max', '1.2'], false);
    assert.equal(refused.code, 35);
    assert.match(refused.stderr, /alert protocol version/u);
  });

  it('TLS 1.1 is refused by every identity', async () => {
    for (const name of ['localhost', 'modern.test']) {
      const { stdout, stderr, code } = await run(needProgram('openssl', 'openssl'), sClientArgs({ ...ec, servername: name }, ['-tls1_1', '-cipher', 'DEFAULT@SECLEVEL=0']), { check: false, input: '' });
      assert.notEqual(code, 0);
      assert.match(stdout + stderr, /alert protocol version/u);
    }
  });

  it('no descriptor and no session is left over', async () => {
    await expectBaseline(pool, baseline);
  });
});

/**
 * The text of the page in a fresh profile. Chromium trusts one key, that of the identity `trusted`, whose name is not asked for:
 * adding a CA to a profile would need another program's data base.
 */
async function chromium(pool: TestPool, port: number, trusted: string): Promise<string> {
  const certificate = new X509Certificate(readFileSync(path.join(pool.identityDir(trusted), 'tls.crt')));
  const spki = createHash('sha256').update(certificate.publicKey.export({ type: 'spki', format: 'der' })).digest('base64');
  const home = tempFolder();
  const { stdout } = await run(needProgram('chromium', 'chromium'), [
    '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update',
    '--disable-sync', '--disable-dev-shm-usage', '--no-proxy-server', `--user-data-dir=${home}/profile`, `--ignore-certificate-errors-spki-list=${spki}`,
    '--host-resolver-rules=MAP localhost 127.0.0.1', '--virtual-time-budget=5000', '--dump-dom', `https://localhost:${String(port)}/`,
  ], { deadlineMs: 55_000, env: { HOME: home, XDG_CONFIG_HOME: home, XDG_CACHE_HOME: home } });
  return stdout;
}
