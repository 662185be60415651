/** Locked keys with a real pool: what is served before and after the PIN, and where the PIN is afterwards. */
import assert from 'node:assert/strict';
import { createPrivateKey } from 'node:crypto';
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { connectPool } from 'libtlspool';
import type { PinQuestion, Pool } from 'libtlspool';
import { acceptLoop, expectBaseline, keyNeedles, needProgram, nodeConnect, Program, repoRoot, run, scanMemory, startPool, tempFolder, until } from '../support/index.js';
import type { Baseline, RunResult, Served, TestPool } from '../support/index.js';

const script = path.join(repoRoot, 'daemon/bin/tlspool.js');
const pin = 'Tr0ub4dor-and-3';

describe('services: locked keys', function () {
  this.timeout(60_000);
  let daemon: TestPool;
  let operator: Pool;
  let plain: string;
  let baseline: Baseline;
  let served: Served | undefined;
  let pinFile: string;

  /** Replaces the key by itself, encrypted under another PIN than before. */
  const seal = (localid: string, passphrase = pin): void => {
    const file = path.join(daemon.identityDir(localid), 'tls.key');
    const key = createPrivateKey({ key: plain });
    writeFileSync(`${file}.new`, key.export({ format: 'pem', type: 'pkcs8', cipher: 'aes-256-cbc', passphrase }), { mode: 0o600 });
    renameSync(`${file}.new`, file);
  };
  const locked = async (): Promise<string[]> =>
    (await operator.request('identities', {})).identities.filter((identity) => identity.locked === true).map(({ localid }) => localid);
  const tlspool = (...args: string[]): Promise<RunResult> => run(process.execPath, [script, '--socket', daemon.socket, ...args], { check: false });
  /** The command with a terminal of its own. */
  const atTerminal = (command: string): Program => new Program(needProgram('script', 'bsdutils'), ['-qec', `'${process.execPath}' '${script}' --socket '${daemon.socket}' ${command}`, '/dev/null']);
  const unlockByFile = () => tlspool('unlock', '--pin-file', pinFile);

  before(async () => {
    daemon = await startPool({ identities: [{ localid: 'localhost', default: false }, { localid: 'sealed.test' }] });
    plain = readFileSync(path.join(daemon.identityDir('sealed.test'), 'tls.key'), 'utf8');
    pinFile = path.join(tempFolder(), 'pin');
    writeFileSync(pinFile, `${pin}\n`, { mode: 0o600 });
  });
  after(() => daemon.stop());
  beforeEach(async () => {
    seal('sealed.test');
    await daemon.restart();
    baseline = daemon.baseline();
    operator = await connectPool({ path: daemon.socket });
  });
  afterEach(async () => {
    await served?.close();
    served = undefined;
    operator.close();
    if (daemon.process.running) await expectBaseline(daemon, baseline);
  });

  const serve = async (): Promise<Served> => {
    served = await acceptLoop(daemon, (socket) => { socket.on('error', () => undefined).end('served'); });
    return served;
  };
  /** Whether a client that asks for the name gets a handshake. */
  const answers = async (servername: string, port: number): Promise<boolean> => {
    try {
      const socket = await nodeConnect({ port, caFile: daemon.caFile, servername });
      socket.resume().on('error', () => undefined).destroy();
      return true;
    } catch (error) {
      assert.match(String(error), /unrecognized[ _]name|ECONNRESET/u);
      return false;
    }
  };

  it('a pool with a locked key starts, serves the rest, and says which one is locked', async () => {
    const { port } = await serve();
    assert.deepEqual([await answers('localhost', port), await answers('sealed.test', port)], [true, false]);
    assert.deepEqual(await locked(), ['sealed.test']);
    assert.match((await tlspool('identities')).stdout, /^sealed\.test \(locked\) +0 /mu);
  });
  it('a PIN opens the name on a listener that is running; it stays open over reloads that change nothing, and locks when the file changes', async () => {
    const { port } = await serve();
    assert.equal(await answers('sealed.test', port), false);
    const { code, stdout } = await unlockByFile();
    assert.deepEqual([code, stdout], [0, 'unlocked: sealed.test\n']);
    assert.equal(await answers('sealed.test', port), true);
    assert.match((await tlspool('reload')).stdout, /nothing has changed/);
    assert.equal(await answers('sealed.test', port), true);
    seal('sealed.test', 'another');
    await tlspool('reload');
    assert.deepEqual([await locked(), await answers('sealed.test', port), await answers('localhost', port)], [['sealed.test'], false, true]);
  });
  it('neither the PIN nor the text of the key is in the memory of tlspoold afterwards, nor in anything that it printed', async () => {
    const { port } = await serve();
    const needles = [{ name: 'the PIN', octets: Buffer.from(pin) }, ...keyNeedles(plain, 'sealed')];
    const mine = Buffer.from(pin);
    const offer = await operator.offerPinEntry(() => mine);
    await until(async () => (await locked()).length === 0, { what: 'the identity to be unlocked' });
    await offer.withdraw();
    assert.equal(await answers('sealed.test', port), true);
    const found = scanMemory(daemon.pid, needles);
    assert.deepEqual(found.filter((name) => name === 'the PIN' || name.includes('PEM line')), []);
    assert.ok(found.some((name) => name.startsWith('sealed d ')), 'the scan sees the key that is in use');
    const printed = daemon.logLines().join('\n');
    assert.match(printed, /an identity was unlocked/);
    assert.ok(!printed.includes(pin));
    assert.doesNotMatch(printed, /PRIVATE KEY/u);
  });
  it('the same scan finds a PIN that was left in a buffer', () => {
    const kept = Buffer.from(pin);
    assert.deepEqual(scanMemory(process.pid, [{ name: 'the PIN', octets: kept }]), ['the PIN']);
  });
  it('three wrong PINs leave it locked, and the pool asks no fourth time before somebody else offers PINs', async () => {
    const asked: PinQuestion[] = [];
    const offer = await operator.offerPinEntry((question) => { asked.push(question); return Buffer.from(`wrong ${String(question.attempt)}`); });
    await until(() => asked.length === 3, { what: 'three questions' });
    await offer.withdraw();
    assert.deepEqual(asked.map(({ localid, attempt, source }) => [localid, attempt, source]), [1, 2, 3].map((attempt) => ['sealed.test', attempt, daemon.identityDir('sealed.test')]));
    assert.deepEqual(await locked(), ['sealed.test']);
    assert.doesNotMatch(daemon.logLines().join('\n'), /wrong \d/u);
    assert.equal((await unlockByFile()).code, 0);
    assert.deepEqual(await locked(), []);
  });
  it('a PIN entry that is killed while a client waits for the identity: the client is refused at once', async () => {
    const entry = atTerminal('unlock');
    await entry.output(/PIN for sealed\.test/u);
    const listening = operator.listen({ localid: 'sealed.test', host: '127.0.0.1', port: 0 });
    listening.catch(() => undefined);
    await until(async () => Number((await operator.request('status', {})).clients) >= 3, { what: 'the listener to be a client of the pool' });
    entry.kill('SIGKILL');
    await entry.ended;
    await assert.rejects(listening, { code: 'IDENTITY_LOCKED' });
  });
  it('listen by localid waits for the PIN', async () => {
    let give: (pin: Buffer) => void = () => undefined;
    const given = new Promise<Buffer>((resolve) => { give = resolve; });
    await assert.rejects(operator.listen({ localid: 'sealed.test', host: '127.0.0.1', port: 0 }), { code: 'IDENTITY_LOCKED', message: /tlspool unlock/ });
    let isAsked = false;
    await operator.offerPinEntry(() => { isAsked = true; return given; });
    await until(() => isAsked, { what: 'the question' });
    const listening = operator.listen({ localid: 'sealed.test', host: '127.0.0.1', port: 0 });
    give(Buffer.from(pin));
    const listener = await listening;
    const { port } = listener.address() as { port: number };
    const client = await nodeConnect({ port, caFile: daemon.caFile, servername: 'sealed.test' });
    const accepted = await listener.accept();
    assert.equal(accepted.servername, 'sealed.test');
    client.on('error', () => undefined).destroy();
    accepted.on('error', () => undefined).destroy();
    await listener.close();
  });
  it('tlspool unlock at a terminal asks without echo, and again when it was wrong', async () => {
    const terminal = atTerminal('unlock');
    await terminal.output(/PIN for sealed\.test \([^)]*\): /u);
    terminal.write('wr0ng-one\r');
    await terminal.output(/That is not it\. PIN for sealed\.test/u);
    terminal.write(`xx\u007f\u007f${pin}\r`);
    await terminal.output(/unlocked: sealed\.test/u);
    assert.equal((await terminal.ended).code, 0);
    assert.ok(!terminal.stdout.includes(pin) && !terminal.stdout.includes('wr0ng-one'), 'nothing that was typed is shown');
  });
  it('tlspool unlock: an empty PIN and Ctrl-C leave it locked, which is exit code 1', async () => {
    for (const typed of ['\r', '\u0003']) {
      const terminal = atTerminal('unlock');
      await terminal.output(/PIN for sealed\.test/u);
      terminal.write(typed);
      await terminal.output(/still locked: sealed\.test/u);
      assert.equal((await terminal.ended).code, 1);
    }
  });
  it('tlspool unlock without a terminal and without a file says what to do, and a file that others can read is refused', async () => {
    const setsid = needProgram('setsid', 'util-linux');
    const alone = await run(setsid, ['-w', process.execPath, script, '--socket', daemon.socket, 'unlock'], { check: false });
    assert.match(alone.stderr, /there is no terminal.*--pin-file/);
    assert.notEqual(alone.code, 0);
    const open = path.join(tempFolder(), 'pin');
    writeFileSync(open, pin, { mode: 0o644 });
    const refused = await tlspool('unlock', '--pin-file', open);
    assert.match(refused.stderr, /has mode 0644/);
    assert.equal(refused.code, 2);
    assert.deepEqual(await locked(), ['sealed.test']);
  });
  it('tlspool unlock with a wrong PIN in its file tries it once, and with nothing locked has nothing to do', async () => {
    const wrong = path.join(tempFolder(), 'pin');
    writeFileSync(wrong, 'wrong', { mode: 0o600 });
    const { code, stderr } = await tlspool('unlock', '--pin-file', wrong);
    assert.equal(code, 1);
    assert.match(stderr, /still locked: sealed\.test/);
    assert.equal(daemon.logLines().filter((line) => line.includes('a wrong PIN')).length, 1);
    assert.equal((await unlockByFile()).code, 0);
    assert.deepEqual([(await unlockByFile()).stdout, (await tlspool('--json', 'unlock')).stdout], ['no identity is locked\n', `${JSON.stringify({ unlocked: [], locked: [] }, undefined, 2)}\n`]);
  });
  it('tlspool unlock --wait stays, and opens what locks later', async () => {
    const staying = new Program(process.execPath, [script, '--socket', daemon.socket, 'unlock', '--wait', '--pin-file', pinFile]);
    await until(async () => (await locked()).length === 0, { what: 'the identity to be unlocked' });
    seal('sealed.test');
    await tlspool('reload');
    await until(async () => (await locked()).length === 0 && daemon.logLines().filter((line) => line.includes('an identity was unlocked')).length === 2, { what: 'it to be unlocked again' });
    staying.kill('SIGTERM');
    await staying.ended;
  });
});
