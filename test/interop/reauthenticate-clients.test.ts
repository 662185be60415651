/** Programs on GnuTLS at examples/admin, in both versions of TLS; those on OpenSSL are in test/system/reauthenticate-admin.test.ts. */
import assert from 'node:assert/strict';
import path from 'node:path';
import { issue, needProgram, Program, run, startPool, tempFolder } from '../support/index.js';
import type { TestLeaf, TestPool } from '../support/index.js';
import { repoRoot } from '../support/program.js';

describe('examples/admin and clients on GnuTLS', function () {
  this.timeout(60_000);
  let daemon: TestPool;
  let server: Program;
  let port: string;
  let alice: TestLeaf;

  before(async () => {
    daemon = await startPool({ identities: [{ localid: 'localhost', policy: 'intermediate', default: true, trust: true }] });
    alice = await issue(daemon.ca, path.join(tempFolder(), 'alice'), { commonName: 'alice', sans: ['email:alice@example.org'], usage: 'clientAuth' });
    server = new Program(process.execPath, [path.join(repoRoot, 'examples/admin/server.mjs'), '0'], { env: { TLSPOOL_SOCKET: daemon.socket } });
    port = (await server.output(/listening on port (\d+)/u, 'stdout'))[1] ?? '';
  });
  after(async () => {
    server.kill('SIGKILL');
    await server.ended;
    await daemon.stop();
  });

  for (const [version, priority] of [['TLSv1_2', 'NORMAL:-VERS-TLS1.3:%NO_TICKETS'], ['TLSv1_3', 'NORMAL:-VERS-ALL:+VERS-TLS1.3']] as const) {
    it(`wget with ${version} shows its certificate, and without one gets 403`, async () => {
      const get = (...args: readonly string[]): ReturnType<typeof run> => run(needProgram('wget', 'wget'), [
        '--quiet', '--output-document=-', '--content-on-error', '--no-hsts', '--tries=1', '--timeout=20', `--secure-protocol=${version}`, `--ca-certificate=${daemon.caFile}`, ...args, `https://localhost:${port}/admin`,
      ], { check: false, env: { no_proxy: '*' } });
      assert.equal((await get(`--certificate=${alice.certFile}`, `--private-key=${alice.keyFile}`)).stdout, 'hello alice\n');
      assert.match((await get()).stdout, /^this page is for those with a certificate\n$/u);
    });

    it(`gnutls-cli with ${priority} shows its certificate`, async () => {
      const program = new Program(needProgram('gnutls-cli', 'gnutls-bin'), [
        '--x509cafile', daemon.caFile, '--x509certfile', alice.certFile, '--x509keyfile', alice.keyFile, '--post-handshake-auth', '--priority', priority, '--port', port, 'localhost',
      ]);
      try {
        await program.output(/Handshake was completed/u);
        program.write('GET /admin HTTP/1.1\r\nHost: localhost\r\n\r\n');
        await program.output(/hello alice/u, 'stdout');
      } finally {
        program.kill('SIGKILL');
        await program.ended;
      }
    });
  }
});
