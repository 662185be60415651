import assert from 'node:assert/strict';
import type { PoolSocket } from 'libtlspool';
import {
  acceptLoop, alertDescription, contentType, event, expectBaseline, handshake, handshakeType, MiniTls, nodeConnect, sClient, startPool, until, within,
} from '../support/index.js';
import type { Baseline, Served, Target, TestPool } from '../support/index.js';

/** Octets and the way in which each connection of the application ended. */
interface Seen { readonly socket: PoolSocket; text: string; /** `end`, or the code of the error. */ readonly ending: Promise<string> }

describe('after the handshake', function () {
  this.timeout(60_000);
  let pool: TestPool;
  let baseline: Baseline;
  let served: Served;
  let target: Target;
  let seen: Seen[] = [];

  before(async () => {
    pool = await startPool({ identities: [{ localid: 'localhost', policy: 'intermediate', default: true }], config: { log: { level: 'warn' } } });
    served = await acceptLoop(pool, (socket) => {
      const ending = new Promise<string>((resolve) => {
        socket.once('error', (error: NodeJS.ErrnoException) => { resolve(error.code ?? error.message); });
        socket.once('end', () => { resolve('end'); });
      });
      const record: Seen = { socket, text: '', ending };
      socket.setEncoding('utf8').on('data', (text: string) => { record.text += text; });
      seen.push(record);
    });
    target = { port: served.port, caFile: pool.caFile };
    baseline = pool.baseline();
  });

  beforeEach(() => { seen = []; });
  after(async () => {
    await served.close();
    await pool.stop();
  });

  const accepted = (): Promise<Seen> => until(() => seen[0], { what: 'the application to get the connection' });

  it('a KeyUpdate that asks for one is answered without application data: openssl s_client', async () => {
    const client = sClient(target, ['-tls1_3', '-msg']);
    await accepted();
    await client.output(/Verify return code: 0/u);
    client.write('K\n');
    await client.output(/>>> TLS 1\.3[^\n]*KeyUpdate/u);
    await client.output(/<<< TLS 1\.3[^\n]*KeyUpdate/u);
    client.write('still here\n');
    await until(async () => (await accepted()).text.includes('still here'), { what: 'application data under the new keys' });
    client.end();
      await client.ended;
  });

  it('a KeyUpdate that asks for none is not answered, and both directions go on', async () => {
    const mini = await MiniTls.connect(target.port);
    const application = await accepted();
    mini.keyUpdate(false);
    mini.send(contentType.applicationData, Buffer.from('one'));
    await until(() => application.text === 'one', { what: 'data after a KeyUpdate' });
    application.socket.write('two');
    await mini.when(() => mini.applicationData.length === 3, 'the answer');
    assert.equal(mini.keyUpdatesReceived(), 0);
    // The acceptance twin: asked, it is answered, and what follows comes under new keys.
    mini.keyUpdate(true);
    await mini.when(() => mini.keyUpdatesReceived() === 1, 'an answer to the KeyUpdate');
    application.socket.write('three');
    await mini.when(() => mini.applicationData.toString() === 'twothree', 'data under the pool\'s new keys');
    mini.close();
  });

  it('a flood of 20,000 KeyUpdates from a client that does not read costs the pool no memory, and others are served', async () => {
    const mini = await MiniTls.connect(target.port);
    await accepted();
    const before = pool.rssKiB();
    mini.tcp.socket.pause();
    for (let batch = 0; batch < 20; batch++) {
      mini.tcp.send(Buffer.concat(Array.from({ length: 1000 }, () => mini.sealKeyUpdate(true))));
    }
    const other = await nodeConnect(target);
    await within(new Promise<void>((resolve) => { other.end(resolve); }), 'another client');
    mini.tcp.socket.resume();
    // Answers may be merged (RFC 8446 section 4.6.3: one KeyUpdate answers all that came before it), but one has to come.
    await mini.when(() => mini.keyUpdatesReceived() > 0, 'an answer');
    assert.ok(pool.rssKiB() - before < 8 * 1024, `grew by ${String(pool.rssKiB() - before)} KiB`);
    mini.close();
  });

  it('close_notify is answered with close_notify, the application reads a clean end', async () => {
    const mini = await MiniTls.connect(target.port);
    const application = await accepted();
    mini.send(contentType.applicationData, Buffer.from('last words'));
    mini.closeNotify();
    await mini.tcp.ended();
    assert.equal(await application.ending, 'end');
    assert.equal(application.text, 'last words');
    assert.deepEqual(mini.alerts, [{ level: 1, description: alertDescription.closeNotify, sealed: true }]);
    assert.equal(mini.tcp.ending, 'fin');
    mini.close();
  });

  it('FIN without close_notify is an error to the application, never a clean end', async () => {
    const mini = await MiniTls.connect(target.port);
    const application = await accepted();
    mini.send(contentType.applicationData, Buffer.from('half a sen'));
    mini.tcp.finish();
    assert.equal(await application.ending, 'TRUNCATED');
    mini.close();
  });

  it('a connection reset is an error to the application', async () => {
    const mini = await MiniTls.connect(target.port);
    const application = await accepted();
    mini.tcp.reset();
    assert.match(await application.ending, /^(?:SESSION_LOST|TRUNCATED|ECONNRESET)$/u);
  });

  it('a FIN in the middle of a record is an error to the application', async () => {
    const mini = await MiniTls.connect(target.port);
    const application = await accepted();
    mini.tcp.send(mini.seal(contentType.applicationData, Buffer.from('cut')).subarray(0, 12));
    mini.tcp.finish();
    assert.equal(await application.ending, 'TRUNCATED');
    assert.equal(application.text, '');
    mini.close();
  });

  it('a forged record is answered with bad_record_mac, and the application reads nothing of it', async () => {
    const mini = await MiniTls.connect(target.port);
    const application = await accepted();
    const forged = mini.seal(contentType.applicationData, Buffer.from('forged'));
    forged[forged.length - 1] = (forged[forged.length - 1] ?? 0) ^ 1;
    mini.tcp.send(forged);
    await mini.tcp.ended();
    assert.deepEqual(mini.alerts, [{ level: 2, description: alertDescription.badRecordMac, sealed: true }]);
    assert.equal(await application.ending, 'SESSION_LOST');
    assert.equal(application.text, '');
    mini.close();
  });

  it('a fatal alert from the client is an error to the application', async () => {
    const mini = await MiniTls.connect(target.port);
    const application = await accepted();
    mini.send(contentType.alert, Buffer.from([2, 80]));
    assert.equal(await application.ending, 'SESSION_LOST');
    mini.close();
  });

  it('the application\'s end sends close_notify before FIN', async () => {
    const mini = await MiniTls.connect(target.port);
    const application = await accepted();
    application.socket.end('bye');
    await mini.when(() => mini.alerts.length > 0, 'close_notify');
    assert.equal(mini.applicationData.toString(), 'bye');
    assert.deepEqual(mini.alerts, [{ level: 1, description: alertDescription.closeNotify, sealed: true }]);
    mini.closeNotify();
    mini.tcp.finish();
    await mini.tcp.ended();
    mini.close();
  });

  it('renegotiation in TLS 1.2 is refused with no_renegotiation and the session goes on or ends, as OpenSSL\'s server has it', async () => {
    const client = sClient(target, ['-tls1_2', '-msg']);
    const application = await accepted();
    await client.output(/Verify return code: 0/u);
    client.write('R\n');
    await client.output(/>>> TLS 1\.2[^\n]*ClientHello[\s\S]*>>> TLS 1\.2[^\n]*ClientHello/u);
    await client.output(/<<< TLS 1\.2, Alert[^\n]*warning no_renegotiation/u);
    assert.equal((client.stdout.match(/<<< TLS 1\.2[^\n]*ServerHello\n/gu) ?? []).length, 1, 'no second handshake was begun');
    client.kill('SIGKILL');
    await client.ended;
    await application.ending;
  });

  it('a renegotiation offered in a TLS 1.3 session is unexpected_message', async () => {
    const mini = await MiniTls.connect(target.port);
    await accepted();
    mini.send(contentType.handshake, handshake(handshakeType.clientHello, Buffer.alloc(64)));
    await mini.tcp.ended();
    assert.deepEqual(mini.alerts.map(({ level, description }) => [level, description]), [[2, alertDescription.unexpectedMessage]]);
    mini.close();
  });

  it('a session that is resumed says so and is served', async () => {
    const first = await nodeConnect(target, { minVersion: 'TLSv1.3' });
    const ticket = event<Buffer>(first, 'session');
    // A ticket is sent with the next octets that go to the client.
    (await accepted()).socket.write('hello');
    const session = await ticket;
    first.destroy();
    const second = await nodeConnect(target, { session });
    assert.equal(second.isSessionReused(), true);
    second.destroy();
  });

  it('no descriptor and no session is left over', async () => {
    await expectBaseline(pool, baseline);
  });
});
