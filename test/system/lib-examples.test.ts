import assert from 'node:assert/strict';
import path from 'node:path';
import { curl, event, nodeConnect, Program, run, startPool, until } from '../support/index.js';
import type { Target, TestPool } from '../support/index.js';
import { repoRoot } from '../support/program.js';

describe('examples/node', () => {
  let daemon: TestPool;
  let program: Program | undefined;
  before(async () => {
    daemon = await startPool({ identities: [{ localid: 'localhost', default: true, trust: true, usage: 'serverAuth' }] });
  });
  after(() => daemon.stop());
  afterEach(async () => {
    program?.kill('SIGKILL');
    await program?.ended;
    program = undefined;
  });

  const script = (name: string): string => path.join(repoRoot, 'examples/node', `${name}.mjs`);
  const start = async (name: string): Promise<Target> => {
    const started = new Program(process.execPath, [script(name), '0'], { env: { TLSPOOL_SOCKET: daemon.socket } });
    program = started;
    const port = await until(() => /listening on port (\d+)/.exec(started.stdout)?.[1], { what: `${name} to listen`, context: () => started.tail() });
    return { port: Number(port), caFile: daemon.caFile };
  };

  for (const [name, answer] of [
    ['http', /^TLSv1\.3 from 127\.0\.0\.1 to localhost\n$/], ['http2', /^HTTP\/2\.0\n$/],
    ['express', /^secure: true, ip: (::ffff:)?127\.0\.0\.1, client: no certificate\n$/], ['fastify', /^\{"protocol":"https","ip":"(::ffff:)?127\.0\.0\.1"\}$/],
  ] as const) {
    it(`${name}.mjs answers curl`, async () => {
      const { stdout } = await curl(await start(name), '/', ['--http2']);
      assert.match(stdout.replace('::ffff:', ''), answer);
    });
  }

  it('ws.mjs upgrades to a WebSocket', async () => {
    const target = await start('ws');
    const socket = await nodeConnect(target);
    socket.write('GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n');
    assert.match(String(await event<Buffer>(socket, 'data')), /^HTTP\/1\.1 101 [^]*s3pPLMBiTxaQ9kYGzzhZRbK\+xOo=/);
    socket.destroy();
  });

  it('handover.mjs has another process answer than the one that accepts', async () => {
    const socket = await nodeConnect(await start('handover'));
    const [, worker, parent] = /^process (\d+) of (\d+), TLSv1\.3 to localhost\n$/u.exec(String(await event<Buffer>(socket, 'data'))) ?? [];
    assert.equal(Number(parent), program?.pid);
    assert.notEqual(worker, parent);
    await event(socket, 'close');
  });

  it('starttls.mjs upgrades an SMTP connection of openssl s_client', async () => {
    const { port } = await start('starttls');
    const { stdout } = await run('openssl', ['s_client', '-starttls', 'smtp', '-connect', `127.0.0.1:${String(port)}`, '-servername', 'localhost', '-CAfile', daemon.caFile, '-verify_return_error'], { deadlineMs: 20_000 });
    assert.match(stdout, /Verify return code: 0 \(ok\)/);
  });

  it('agent.mjs reads a page of http.mjs', async () => {
    const { port } = await start('http');
    const { stdout } = await run(process.execPath, [script('agent'), `https://localhost:${String(port)}/`, 'localhost'], { env: { TLSPOOL_SOCKET: daemon.socket }, deadlineMs: 20_000 });
    assert.match(stdout, /^200 TLS_[A-Z0-9_]+\nTLSv1\.3 from /);
  });
});
