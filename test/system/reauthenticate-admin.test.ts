/** examples/admin: a certificate is asked for when /admin is requested, and not before. */
import assert from 'node:assert/strict';
import path from 'node:path';
import { curl, issue, makeCa, needProgram, Program, run, sClient, startPool, tempFolder, until } from '../support/index.js';
import type { Target, TestLeaf, TestPool } from '../support/index.js';
import { repoRoot } from '../support/program.js';

const everybody = /^for everybody;/u;
const forbidden = /^this page is for those with a certificate\n$/u;
const request = (page: string): string => `GET ${page} HTTP/1.1\r\nHost: localhost\r\n\r\n`;

describe('examples/admin', function () {
  this.timeout(60_000);
  let daemon: TestPool;
  let server: Program;
  let target: Target;
  let alice: TestLeaf;
  let stranger: TestLeaf;
  let asked: number;

  before(async () => {
    daemon = await startPool({ identities: [{ localid: 'localhost', policy: 'intermediate', default: true, trust: true, usage: 'serverAuth' }] });
    const folder = tempFolder();
    alice = await issue(daemon.ca, path.join(folder, 'alice'), { commonName: 'alice', sans: ['email:alice@example.org'], usage: 'clientAuth' });
    const other = await makeCa(path.join(folder, 'other'), 'somebody else\'s CA');
    stranger = await issue(other, path.join(folder, 'stranger'), { commonName: 'stranger', sans: ['email:stranger@example.org'], usage: 'clientAuth' });
    server = new Program(process.execPath, [script('server'), '0'], { env: { TLSPOOL_SOCKET: daemon.socket } });
    const [, port] = await server.output(/listening on port (\d+)/u, 'stdout');
    target = { port: Number(port), caFile: daemon.caFile };
  });
  after(async () => {
    server.kill('SIGKILL');
    await server.ended;
    await daemon.stop();
  });
  beforeEach(async () => {
    await until(() => logged('session ended') === logged('session established'), { what: 'the sessions of before to end' });
    asked = answers();
  });

  const script = (name: string): string => path.join(repoRoot, 'examples/admin', `${name}.mjs`);
  const logged = (msg: string): number => daemon.logLines().filter((line) => line.includes(`"msg":"${msg}"`)).length;
  /** How many clients have answered so far. */
  const answers = (): number => logged('session reauthenticated');
  /** So many have answered in this test, and the log may be behind. */
  const expectAsked = async (count: number): Promise<void> => {
    await until(() => answers() - asked >= count, { what: 'the log to tell of the answers' });
    assert.equal(answers() - asked, count);
  };
  /** The same when the clients are gone: nothing is logged of a session after its end. */
  const expectAskedInAll = async (count: number): Promise<void> => {
    await until(() => logged('session ended') === logged('session established'), { what: 'the sessions to end' });
    assert.equal(answers() - asked, count);
  };
  const of = (client: TestLeaf | undefined): Target => ({ ...target, ...(client !== undefined && { client }) });

  describe('TLS 1.2, client.mjs', () => {
    const fetch = async (page: string, client?: TestLeaf): Promise<string> => {
      const { stdout } = await run(process.execPath, [script('client'), `https://localhost:${String(target.port)}${page}`, target.caFile, ...(client === undefined ? [] : [client.certFile, client.keyFile])]);
      return stdout;
    };

    it('shows its certificate on the connection that it has, and is called by its name', async () => {
      assert.match(await fetch('/admin', alice), /^\/: 200 for everybody;[^\n]*\n\/admin: 200 hello alice\n$/u);
      await expectAskedInAll(1);
    });
    it('without a certificate is refused with 403, and the connection goes on', async () => {
      assert.match(await fetch('/admin'), /^\/: 200 [^\n]*\n\/admin: 403 this page is for those with a certificate\n$/u);
      await expectAskedInAll(1);
    });
    it('is not asked for other pages', async () => {
      assert.match(await fetch('/administration', alice), /^\/: 200 [^\n]*\n\/administration: 200 for everybody;/u);
      await expectAskedInAll(0);
    });
  });

  describe('TLS 1.3, openssl s_client', () => {
    async function talk(args: readonly string[], client: TestLeaf, steps: (program: Program) => Promise<void>): Promise<void> {
      const program = sClient(of(client), ['-quiet', '-tls1_3', ...args]);
      try {
        await steps(program);
      } finally {
        program.kill('SIGKILL');
        await program.ended;
      }
    }

    it('with -enable_pha is asked once, when it comes to /admin, and never again', async () => {
      await talk(['-enable_pha'], alice, async (program) => {
        program.write(request('/'));
        await program.output(/200 OK[^]*for everybody/u, 'stdout');
        await expectAsked(0);
        program.write(request('/admin'));
        await program.output(/hello alice/u, 'stdout');
        await expectAsked(1);
        program.write(request('/admin/more'));
        await program.output(/hello alice[^]*hello alice/u, 'stdout');
        await expectAsked(1);
      });
    });
    it('pipelined requests wait for one answer, and are answered in their order', async () => {
      await talk(['-enable_pha'], alice, async (program) => {
        program.write(request('/admin/1') + request('/admin/2') + request('/'));
        await program.output(/hello alice[^]*hello alice[^]*for everybody/u, 'stdout');
        await expectAsked(1);
      });
    });
    it('with a certificate that is not accepted gets 403 with the reason', async () => {
      await talk(['-enable_pha'], stranger, async (program) => {
        program.write(request('/admin'));
        await program.output(/403 Forbidden[^]*yours was not accepted \([A-Z_]+\)/u, 'stdout');
      });
    });
    it('without -enable_pha gets 403: it cannot be asked', async () => {
      await talk([], alice, async (program) => {
        program.write(request('/admin'));
        await program.output(/403 Forbidden[^]*no certificate is to be had: [^\n]*post-handshake authentication/u, 'stdout');
        program.write(request('/'));
        await program.output(/for everybody/u, 'stdout');
      });
    });
  });

  for (const version of ['1.2', '1.3']) {
    describe(`TLS ${version}, curl`, () => {
      const fetch = async (page: string, client?: TestLeaf, more: readonly string[] = []): Promise<[status: string, body: string]> => {
        const { stdout } = await curl(of(client), page, ['--tls-max', version, '--write-out', '%{http_code}', ...more]);
        return [stdout.slice(-3), stdout.slice(0, -3)];
      };

      it('shows its certificate', async () => { assert.deepEqual(await fetch('/admin', alice), ['200', 'hello alice\n']); });
      it('without one gets 403', async () => {
        const [status, body] = await fetch('/admin');
        assert.equal(status, '403');
        assert.match(body, forbidden);
      });
      it('is not asked for other pages', async () => {
        const [status, body] = await fetch('/', alice);
        assert.equal(status, '200');
        assert.match(body, everybody);
        await expectAskedInAll(0);
      });
      it('that sends a body of 8 MiB is asked behind it', async () => {
        const body = Buffer.alloc(8 * 1024 * 1024, 'x').toString();
        const program = new Program(needProgram('curl', 'curl'), [
          '--silent', '--max-time', '30', '--noproxy', '*', '--cacert', target.caFile, '--resolve', `localhost:${String(target.port)}:127.0.0.1`, '--tls-max', version,
          '--cert', alice.certFile, '--key', alice.keyFile, '--header', 'Expect:', '--data-binary', '@-', `https://localhost:${String(target.port)}/admin`,
        ]);
        program.end(body);
        assert.equal((await program.ended).code, 0);
        assert.equal(program.stdout, 'hello alice\n');
      });
      it('that offers HTTP/2 gets http/1.1, in which it can be asked', async () => {
        assert.deepEqual(await fetch('/admin', alice, ['--http2']), ['200', 'hello alice\n']);
      });
    });
  }

  describe('Python\'s ssl', () => {
    /** Fetches /admin; the second argument is a statement about the context. */
    const program = [
      'import http.client, ssl, sys', 'context = ssl.create_default_context(cafile=sys.argv[3])', 'context.load_cert_chain(sys.argv[4], sys.argv[5])', 'exec(sys.argv[2])',
      'connection = http.client.HTTPSConnection("localhost", int(sys.argv[1]), context=context, timeout=20)', 'connection.request("GET", "/admin")',
      'response = connection.getresponse()', 'print(response.status, response.read().decode(), end="")',
    ].join('\n');
    const fetch = async (statement: string): Promise<string> =>
      (await run(needProgram('python3', 'python3'), ['-c', program, String(target.port), statement, target.caFile, alice.certFile, alice.keyFile])).stdout;

    it('shows its certificate with TLS 1.2', async () => { assert.equal(await fetch('context.maximum_version = ssl.TLSVersion.TLSv1_2'), '200 hello alice\n'); });
    it('shows its certificate with TLS 1.3 and post_handshake_auth, and cannot be asked without', async () => {
      assert.equal(await fetch('context.post_handshake_auth = True'), '200 hello alice\n');
      assert.match(await fetch('pass'), /^403 no certificate is to be had/u);
    });
  });

  describe('afterwards', () => {
    it('the sessions of all of them are over', async () => {
      await until(() => daemon.status()['sessions'] === 0, { what: 'the last session to end' });
    });
  });
});
