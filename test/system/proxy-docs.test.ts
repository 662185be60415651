/** The programs that docs/proxy prints do what the pages say, behind a real proxy and a real pool. */
import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { preambleNames, preambles } from 'libtlspool/preamble';
import { needProgram, Program, repoRoot, run, sClient, startPool, tempFolder, TestProxy, until } from '../support/index.js';
import type { TestPool } from '../support/index.js';

/** The block behind a marker. */
function block(page: string, name: string): string {
  const text = readFileSync(path.join(repoRoot, 'docs/proxy', page), 'utf8');
  const [, code] = new RegExp(`<!-- run: ${name} -->\\n\`\`\`\\w+\\n([^]*?)\`\`\`\\n`, 'u').exec(text) ?? [];
  assert(code !== undefined, `docs/proxy/${page} has no block marked "run: ${name}"`);
  return code;
}

/** An outward proxy that connects everybody to the same place, whatever is asked for. Speaks as little of HTTP CONNECT and of SOCKS 5 as will do. */
async function startOutward(to: net.TcpNetConnectOpts): Promise<net.Server> {
  const server = net.createServer((client) => {
    client.once('data', (first: Buffer) => {
      const connect = (answer: Buffer): void => {
        const target = net.connect(to, () => { client.write(answer); });
        for (const [from, into] of [[client, target], [target, client]] as const) from.on('error', () => into.destroy()).pipe(into);
      };
      if (first[0] !== 5) {
        connect(Buffer.from('HTTP/1.1 200 Connection established\r\n\r\n'));
        return;
      }
      client.write(Buffer.from([5, 0]));
      client.once('data', () => { connect(Buffer.from([5, 0, 0, 1, 0, 0, 0, 0, 0, 0])); });
    });
  });
  await new Promise<void>((resolve) => { server.listen(0, '127.0.0.1', resolve); });
  return server;
}

/** Lines of the pages that begin with `openssl s_client`, with the protocol of -starttls. */
const tried = readdirSync(path.join(repoRoot, 'docs/proxy'))
  .flatMap((file) => [...readFileSync(path.join(repoRoot, 'docs/proxy', file), 'utf8').matchAll(/^ {4}openssl (s_client .*)$/gmu)].map(([, line = '']) => line))
  .map((line) => ({ line, protocol: /-starttls (\S+)/u.exec(line)?.[1] ?? 'none' }));
/** openssl's word for a protocol, where it is another one. */
const wordsOfOpenssl: Readonly<Record<string, string>> = { xmpp: 'xmpp-client' };

describe('docs/proxy: programs', () => {
  let pool: TestPool;
  let proxy: TestProxy;
  let program: Program;
  const folder = path.join(repoRoot, 'build/docs-proxy');
  const handoff = path.join(tempFolder(), 'handoff.sock');
  const script = path.join(tempFolder(), 'greeter');
  const others = [...new Set(tried.map(({ protocol }) => wordsOfOpenssl[protocol] ?? protocol))].filter((protocol) => protocol !== 'imap');

  before(async () => {
    mkdirSync(folder, { recursive: true });
    const file = path.join(folder, `backend-${process.pid}.mjs`);
    const code = block('fd.md', 'backend');
    assert(code.includes('\'/run/imapd/handoff.sock\''));
    writeFileSync(file, code.replace('\'/run/imapd/handoff.sock\'', JSON.stringify(handoff)));
    writeFileSync(script, block('exec.md', 'exec'));
    chmodSync(script, 0o755);
    pool = await startPool({ identities: [{ localid: 'localhost', default: true }, { localid: 'client.example', usage: 'clientAuth', trust: true }] });
    program = new Program(process.execPath, [file], { env: { TLSPOOL_SOCKET: pool.socket } });
    proxy = await TestProxy.start(pool, [
      { name: 'imap', protocol: 'imap', listen: '127.0.0.1:0', backend: { fd: handoff } },
      { name: 'greeter', protocol: 'none', listen: '[::1]:0', backend: { exec: [script] } },
      ...others.map((protocol, index) => ({ name: protocol, protocol, listen: `127.0.2.${index + 1}:0`, backend: { fd: handoff } })),
    ]);
    await until(() => readFileSync('/proc/net/unix', 'utf8').includes(handoff), { what: 'the backend to listen' });
  });
  after(async () => {
    program.kill('SIGKILL');
    await program.ended;
    await proxy.stop();
    await pool.stop();
  });

  it('the backend of fd.md serves openssl s_client behind STARTTLS, with not a line about it', async () => {
    const client = sClient({ port: proxy.port('imap'), caFile: pool.caFile }, ['-starttls', 'imap', '-quiet']);
    client.write('a NOOP\r\n');
    await client.output(/^a OK 127\.0\.0\.1 by way of imap\r$/mu, 'stdout');
    client.write('b LOGOUT\r\n');
    await client.output(/^\* BYE over TLSv1\.3\r\nb OK\r$/mu, 'stdout');
    client.end();
    await client.ended;
    const record = await proxy.record('imap');
    assert.deepEqual([record.ended, record.backend, record.protocol], ['handed-over', handoff, 'TLSv1.3']);
  });

  it('the program of exec.md tells its client what it was told', async () => {
    const client = new Program('openssl', ['s_client', '-connect', `[::1]:${proxy.port('greeter')}`, '-servername', 'localhost', '-CAfile', pool.caFile, '-verify_return_error', '-quiet']);
    await client.output(/^\* BYE ::1, you have TLSv1\.3, and I have been told 1 descriptor\r$/mu, 'stdout');
    client.end();
    await client.ended;
    const record = await proxy.record('greeter');
    assert.match(String(record.backend), /greeter\[\d+\]$/u);
    assert.equal(record.ended, 'closed');
  });

  for (const [page, service, said] of [['http-connect.md', 'imap', /^\* BYE over TLSv1\.3\r\na OK\r$/mu], ['socks5.md', 'greeter', /^\* BYE ::1, you have TLSv1\.3/mu]] as const) {
    it(`the client of ${page} gets through the outward proxy to a server that it verifies`, async () => {
      const outward = await startOutward({ host: proxy.host(service).replace(/[[\]]/gu, ''), port: proxy.port(service) });
      const { port } = outward.address() as net.AddressInfo;
      const file = path.join(folder, `via-${service}-${process.pid}.mjs`);
      // The trust of an identity, since the pool of a test has no other; and no name of the documentation leads anywhere.
      writeFileSync(file, block(page, 'via').replace(/net\.connect\(\d+, '[^']+'\)/u, `net.connect(${port}, '127.0.0.1')`).replace('remoteid: \'mail.example.org\'', 'remoteid: \'localhost\', localid: \'client.example\''));
      const client = new Program(process.execPath, [file], { env: { TLSPOOL_SOCKET: pool.socket } });
      await client.output(said, 'stdout');
      client.kill();
      await client.ended;
      outward.close();
    });
  }

  it('there are commands to try for each protocol in which a client can ask for TLS', () => {
    // submission is smtp to openssl.
    const served = preambleNames.filter((name) => preambles[name].server !== undefined && name !== 'submission');
    assert.deepEqual(tried.map(({ protocol }) => wordsOfOpenssl[protocol] ?? protocol).sort(), [...served].sort());
  });
  for (const { line, protocol } of tried) {
    it(`\`openssl ${line}\` verifies the certificate`, async () => {
      const service = wordsOfOpenssl[protocol] ?? protocol;
      const command = line.replace(/-connect \S+/u, `-connect ${proxy.host(service)}:${proxy.port(service)}`).replace(/-servername \S+/u, '-servername localhost');
      const { stdout } = await run(needProgram('openssl', 'openssl'), [...command.split(' '), '-CAfile', pool.caFile], { input: '' });
      assert.match(stdout, /^Verify return code: 0 \(ok\)$/mu);
    });
  }
});
