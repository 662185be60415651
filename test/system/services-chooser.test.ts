/** Choosers with a real pool: another program of the user picks the client certificate. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import path from 'node:path';
import tls from 'node:tls';
import { connectPool } from 'libtlspool';
import type { ChooseIdentity, IdentityQuestion, Pool, PoolSocket } from 'libtlspool';
import { expectBaseline, needProgram, Program, repoRoot, run, startPool, until } from '../support/index.js';
import type { Baseline, TestPool } from '../support/index.js';

const script = path.join(repoRoot, 'daemon/bin/tlspool.js');

describe('services: a chooser picks the identity of outgoing sessions', function () {
  this.timeout(60_000);
  let daemon: TestPool;
  let program: Pool;
  let desk: Pool;
  let server: tls.Server;
  let port: number;
  let shown: string[];
  let baseline: Baseline;
  const programs: Program[] = [];

  before(async () => {
    daemon = await startPool({ identities: [{ localid: 'localhost', default: true }, ...['alice', 'bob'].map((localid) => ({ localid, usage: 'clientAuth' as const, trust: true }))] });
    const read = (name: string): Buffer => readFileSync(path.join(daemon.identityDir('localhost'), name));
    server = tls.createServer({ cert: read('tls.crt'), key: read('tls.key'), ca: readFileSync(daemon.caFile), requestCert: true, rejectUnauthorized: false }, (socket) => {
      shown.push(socket.authorized ? String(socket.getPeerCertificate().subject.CN) : 'nobody');
      socket.on('error', () => undefined).end();
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    port = (server.address() as AddressInfo).port;
  });
  after(async () => {
    server.close();
    await daemon.stop();
  });
  beforeEach(async () => {
    shown = [];
    baseline = daemon.baseline();
    program = await connectPool({ path: daemon.socket });
    desk = await connectPool({ path: daemon.socket });
  });
  afterEach(async () => {
    for (const one of programs.splice(0)) {
      one.kill('SIGKILL');
      await one.ended;
    }
    await program.request('forget', {});
    program.close();
    desk.close();
    await expectBaseline(daemon, baseline);
  });

  const connect = (options: object = {}): Promise<PoolSocket> => program.connect({ host: '127.0.0.1', remoteid: 'localhost', port, ...options });
  /** Who the server has seen behind one more connection. */
  const seenAs = async (options: object = {}): Promise<string | undefined> => {
    const count = shown.length;
    const socket = await connect(options);
    await until(() => shown.length > count, { what: 'the server to see the client' });
    socket.destroy();
    return shown.at(-1);
  };
  const choose = (chooser: ChooseIdentity) => desk.offerChooser(chooser);

  it('without a chooser a session shows no certificate', async () => {
    assert.equal(await seenAs({ rejectUnauthorized: false }), 'nobody');
  });
  it('the server sees the certificate that the chooser picked, session by session', async () => {
    const asked: IdentityQuestion[] = [];
    await choose((question) => { asked.push(question); return { localid: asked.length === 1 ? 'alice' : 'bob' }; });
    assert.deepEqual([await seenAs(), await seenAs()], ['alice', 'bob']);
    const { remoteid, candidates, pid } = asked[0] as IdentityQuestion;
    assert.deepEqual([remoteid, pid, candidates.map(({ localid, subject }) => `${localid} ${subject ?? ''}`)], ['localhost', process.pid, ['alice CN=alice', 'bob CN=bob']]);
  });
  it('openssl s_server -Verify gets the certificate that it insists on', async () => {
    const folder = daemon.identityDir('localhost');
    const peer = new Program(needProgram('openssl', 'openssl'), [
      's_server', '-accept', '127.0.0.1:0', '-cert', path.join(folder, 'tls.crt'), '-key', path.join(folder, 'tls.key'), '-Verify', '1', '-CAfile', daemon.caFile, '-verify_return_error', '-naccept', '2',
    ]);
    programs.push(peer);
    const [, at] = await peer.output(/ACCEPT [^\n]*:(\d+)/u, 'stdout');
    const refused = await connect({ port: Number(at), rejectUnauthorized: false });
    refused.on('error', () => undefined).resume();
    await peer.output(/peer did not return a certificate/u);
    refused.destroy();
    await choose(() => ({ localid: 'alice' }));
    const socket = await connect({ port: Number(at) });
    await peer.output(/subject=CN = alice/u);
    socket.write('hello\n');
    await peer.output(/hello/u, 'stdout');
    socket.destroy();
  });
  it('a remembered choice is not asked for again, nor after the pool was killed, until it is forgotten', async () => {
    let asked = 0;
    const chooser: ChooseIdentity = () => { asked += 1; return { localid: 'alice', rememberS: 3600 }; };
    const offer = await choose(chooser);
    assert.deepEqual([await seenAs(), await seenAs(), asked], ['alice', 'alice', 1]);
    await offer.withdraw();
    assert.equal(await seenAs(), 'alice');
    const file = path.join(daemon.stateDir, 'choices.json');
    await until(() => existsSync(file), { what: 'the file of choices' });
    assert.equal(statSync(file).mode & 0o777, 0o600);
    await daemon.restart();
    await program.ping();
    assert.equal(await seenAs(), 'alice');
    const forgotten = await run(process.execPath, [script, '--socket', daemon.socket, 'forget', 'localhost']);
    assert.equal(forgotten.stdout, 'forgotten: 1\n');
    await desk.ping();
    await choose(chooser);
    assert.deepEqual([await seenAs(), asked], ['alice', 2]);
    baseline = { ...baseline, fds: baseline.fds + 2 };
  });
  it('a file of choices that is damaged costs the choices and nothing else', async () => {
    // Not before it has ended: what was chosen is written a moment later.
    await daemon.restart(() => { writeFileSync(path.join(daemon.stateDir, 'choices.json'), '{"version":1,"choices":[{', { mode: 0o600 }); });
    await program.ping();
    assert.equal(await seenAs({ rejectUnauthorized: false }), 'nobody');
    assert.match(daemon.logLines().join('\n'), /"level":"error".*remembered choices cannot be read/);
  });
  it('a chooser that is killed while it thinks refuses the session at once', async () => {
    const terminal = new Program(process.execPath, [script, '--socket', daemon.socket, 'choose']);
    programs.push(terminal);
    await terminal.output(/choosing/u);
    const session = connect({ handshakeMs: 30_000 });
    session.catch(() => undefined);
    await terminal.output(/which one\?/u);
    const killedAt = performance.now();
    terminal.kill('SIGKILL');
    await assert.rejects(session, { code: 'CHOICE_REFUSED', message: 'the chooser has gone' });
    assert.ok(performance.now() - killedAt < 1000, `${String(performance.now() - killedAt)} ms`);
    assert.equal(await seenAs({ rejectUnauthorized: false }), 'nobody', 'afterwards it is as if there had been none');
  });
  it('a chooser that is stopped, and says nothing, holds a session no longer than its handshake may take', async () => {
    const terminal = new Program(process.execPath, [script, '--socket', daemon.socket, 'choose']);
    programs.push(terminal);
    await terminal.output(/choosing/u);
    terminal.kill('SIGSTOP');
    const startedAt = performance.now();
    await assert.rejects(connect({ handshakeMs: 300 }), { code: 'CHOICE_REFUSED', message: /did not answer in time/ });
    const tookMs = performance.now() - startedAt;
    assert.ok(tookMs >= 290 && tookMs < 2000, `${String(tookMs)} ms`);
    terminal.kill('SIGCONT');
  });
  it('a program that goes while its session waits leaves nothing behind in the pool', async () => {
    let asked: () => void = () => undefined;
    const question = new Promise<void>((resolve) => { asked = resolve; });
    await choose(() => { asked(); return new Promise(() => undefined); });
    const session = connect();
    session.catch(() => undefined);
    await question;
    program.close();
    await assert.rejects(session, { code: 'POOL_LOST' });
    desk.close();
    await expectBaseline(daemon, baseline);
    program = await connectPool({ path: daemon.socket });
  });
  it('tlspool choose: a line is a choice, what is none is asked again, and r refuses', async () => {
    const terminal = new Program(process.execPath, [script, '--socket', daemon.socket, 'choose', '--remember', '1h']);
    programs.push(terminal);
    await terminal.output(/choosing/u);
    const first = seenAs();
    await terminal.output(new RegExp(`process ${String(process.pid)} connects to localhost\\n[^]*0 +\\(none\\)[^]*1 +alice +CN=alice[^]*2 +bob[^]*which one\\?`, 'u'));
    terminal.write('7\n');
    await terminal.output(/0 to 2, or r/u);
    terminal.write('2\n');
    assert.equal(await first, 'bob');
    assert.equal(await seenAs(), 'bob', 'it was remembered');
    await program.request('forget', {});
    const second = connect();
    second.catch(() => undefined);
    await terminal.output(/which one\?[^]*which one\?/u);
    terminal.write('r\n');
    await assert.rejects(second, { code: 'CHOICE_REFUSED', message: 'the chooser refused' });
    terminal.end();
    assert.equal((await terminal.ended).code, 0);
  });
  it('tlspool choose: a second one is told that the first is there', async () => {
    const terminal = new Program(process.execPath, [script, '--socket', daemon.socket, 'choose']);
    programs.push(terminal);
    await terminal.output(/choosing/u);
    const { code, stderr } = await run(process.execPath, [script, '--socket', daemon.socket, 'choose'], { check: false });
    assert.equal(code, 1);
    assert.match(stderr, /has a chooser already.*SERVICE_TAKEN/);
  });
  it('tlspool choose: a duration of 365d is taken, and one of 366d or without a unit is not', async () => {
    const terminal = new Program(process.execPath, [script, '--socket', daemon.socket, 'choose', '--remember', '365d']);
    programs.push(terminal);
    await terminal.output(/choosing/u);
    for (const duration of ['366d', '5', '0s', '']) {
      const { code, stderr } = await run(process.execPath, [script, '--socket', daemon.socket, 'choose', '--remember', duration], { check: false });
      assert.deepEqual([code, /from 1s to 365d/.test(stderr)], [2, true], duration);
    }
  });
});
