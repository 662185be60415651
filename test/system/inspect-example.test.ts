/** examples/inspect: a forward proxy that reads along, between curl and two servers that know nothing of it. */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import https from 'node:https';
import type { AddressInfo } from 'node:net';
import path from 'node:path';
import type { TLSSocket } from 'node:tls';
import { issue, makeCa, needProgram, Program, repoRoot, run, startPool, tempFolder, until } from '../support/index.js';
import type { RunResult, TestCa, TestPool } from '../support/index.js';

/** An answer whose end is that of the connection; cut, it is without close_notify. */
function endless(socket: TLSSocket, isWhole: boolean): void {
  socket.write('HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nbeginning', () => {
    if (isWhole) socket.end();
    else socket.destroy();
  });
}

describe('examples/inspect', function () {
  this.timeout(60_000);
  let signing: TestCa;
  let origins: TestCa;
  let daemon: TestPool;
  let proxy: Program;
  let proxyPort: number;
  const servers: https.Server[] = [];

  /** A server with a certificate for this name; its port. */
  async function origin(ca: TestCa, san: string, text: string): Promise<number> {
    const { certFile, keyFile } = await issue(ca, tempFolder(), { commonName: text, sans: [san] });
    const server = https.createServer({ cert: readFileSync(certFile), key: readFileSync(keyFile) }, (request, response) => {
      if (request.url === '/echo') request.pipe(response);
      else if (request.url === '/whole' || request.url === '/broken') endless(request.socket as TLSSocket, request.url === '/whole');
      else response.end(`this is ${text}\n`);
    });
    servers.push(server);
    await new Promise<void>((resolve) => { server.listen(0, '127.0.0.1', resolve); });
    return (server.address() as AddressInfo).port;
  }

  before(async () => {
    const folder = tempFolder();
    signing = await makeCa(path.join(folder, 'signing'), 'inspection');
    origins = await makeCa(path.join(folder, 'origins'), 'the world');
    daemon = await startPool({
      identities: [], config: { trust: { roots: [origins.certFile] }, onTheFly: { ca: { certificate: signing.certFile, key: signing.keyFile }, names: ['*'] } },
    });
    proxy = new Program(process.execPath, [path.join(repoRoot, 'examples/inspect/proxy.mjs'), '0'], { env: { TLSPOOL_SOCKET: daemon.socket } });
    proxyPort = Number(await until(() => /listening on port (\d+)/.exec(proxy.stdout)?.[1], { what: 'the proxy to listen', context: () => proxy.tail() }));
  });
  after(async () => {
    proxy.kill('SIGKILL');
    await proxy.ended;
    for (const server of servers) server.close();
    await daemon.stop();
  });

  const get = (url: string, args: readonly string[] = []): Promise<RunResult> => run(needProgram('curl', 'curl'), [
    '--silent', '--show-error', '--max-time', '20', '--proxy', `http://127.0.0.1:${String(proxyPort)}`, '--cacert', signing.certFile, ...args, url,
  ], { deadlineMs: 30_000, check: false });

  it('curl, which trusts its CA alone, reaches two servers of different names, and the proxy prints both', async () => {
    const one = await origin(origins, 'DNS:localhost', 'one');
    const two = await origin(origins, 'IP:127.0.0.1', 'two');
    assert.equal((await get(`https://localhost:${String(one)}/`)).stdout, 'this is one\n', proxy.tail());
    assert.equal((await get(`https://127.0.0.1:${String(two)}/`)).stdout, 'this is two\n', proxy.tail());
    assert.match(proxy.stdout, /^localhost {2}TLSv1\.3 inside, TLSv1\.3 outside$/m);
    assert.match(proxy.stdout, /^127\.0\.0\.1 {2}TLSv1\.3 inside, TLSv1\.3 outside$/m);
  });
  it('sixteen megabytes go through, and come back', async () => {
    const port = await origin(origins, 'DNS:localhost', 'big');
    const file = path.join(tempFolder(), 'body');
    writeFileSync(file, Buffer.alloc(16 * 1024 * 1024, 'body'));
    assert.equal((await get(`https://localhost:${String(port)}/echo`, ['--data-binary', `@${file}`, '--output', `${file}.back`])).code, 0, proxy.tail());
    assert.ok(readFileSync(file).equals(readFileSync(`${file}.back`)));
  });
  it('an answer that the server breaks off does not look complete', async () => {
    const port = await origin(origins, 'DNS:localhost', 'broken');
    assert.equal((await get(`https://localhost:${String(port)}/whole`)).code, 0);
    const { code, stdout, stderr } = await get(`https://localhost:${String(port)}/broken`);
    assert.notEqual(code, 0);
    assert.doesNotMatch(stderr, /CONNECT|502/, 'it failed behind the proxy, not before it');
    // The reset that says so may overtake what came before.
    assert.ok('beginning'.startsWith(stdout), stdout);
  });
  it('a server that the pool does not trust is not made trusted by a certificate of ours', async () => {
    const evil = await makeCa(path.join(tempFolder(), 'evil'), 'nobody');
    const port = await origin(evil, 'DNS:localhost', 'evil');
    const { code, stderr } = await get(`https://localhost:${String(port)}/`);
    assert.notEqual(code, 0);
    assert.match(stderr, /502/);
    assert.match(proxy.stdout, /^localhost {2}CERT_REJECTED$/m);
  });
  it('a name in the handshake that is not that of the request is refused', async () => {
    const port = await origin(origins, 'DNS:localhost', 'fronted');
    const { stdout, stderr } = await run(needProgram('openssl', 'openssl'), ['s_client', '-proxy', `127.0.0.1:${String(proxyPort)}`, '-connect', `localhost:${String(port)}`, '-servername', 'other.example'], { check: false, deadlineMs: 20_000 });
    assert.match(stdout + stderr, /unrecognized name/);
  });
  it('what is no CONNECT is told so', async () => {
    const { stdout } = await run(needProgram('curl', 'curl'), ['--silent', '--include', '--proxy', `http://127.0.0.1:${String(proxyPort)}`, 'http://localhost/'], { check: false, deadlineMs: 20_000 });
    assert.match(stdout, /^HTTP\/1\.1 400 Only CONNECT here\r\n/);
  });
});
