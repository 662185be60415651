/** What becomes of a session when the program that owns it is killed: the table of docs/control-keys.md, row by row. */
import assert from 'node:assert/strict';
import net from 'node:net';
import path from 'node:path';
import { connectPool, TlsPoolError } from 'libtlspool';
import type { Pool } from 'libtlspool';
import { sockets } from 'libtlspool/native';
import type { OwnedFd } from 'libtlspool/native';
import { event, expectBaseline, nodeConnect, PoolWire, Program, startPool, TlsClient, until, within } from '../support/index.js';
import type { Baseline, TestPool } from '../support/index.js';
import type { FromOwner, OwnerState } from '../support/apps/owner-app.js';
import { Courier } from '../support/courier.js';

const end = 16;

/** A process of apps/owner-app. */
class Owner {
  readonly program: Program;
  readonly courier: Courier<FromOwner>;
  readonly port: Promise<number>;
  readonly ready: Promise<{ readonly ctlkey: Buffer; readonly fd: OwnedFd | undefined }>;

  constructor(daemon: TestPool, state: OwnerState) {
    const [ours, theirs] = sockets.socketpair('seqpacket');
    this.program = new Program(process.execPath, [path.join(import.meta.dirname, '../support/apps/owner-app.js'), state], { env: { TLSPOOL_SOCKET: daemon.socket }, passed: [theirs] });
    sockets.close(theirs);
    let onPort: (port: number) => void = () => undefined;
    let onReady: (is: { ctlkey: Buffer; fd: OwnedFd | undefined }) => void = () => undefined;
    this.port = within(new Promise<number>((resolve) => { onPort = resolve; }), 'the owner to listen', 15_000, () => this.program.tail());
    this.ready = new Promise((resolve) => { onReady = resolve; });
    this.courier = new Courier<FromOwner>(ours, (message, fd) => {
      if ('port' in message) onPort(message.port);
      else onReady({ ctlkey: Buffer.from(message.ctlkey ?? '', 'hex'), fd });
    });
  }

  async kill(): Promise<void> {
    if (this.program.running) this.program.kill('SIGKILL');
    await this.program.ended;
    this.courier.close();
  }
}

describe('the owner of a session is killed', function () {
  this.timeout(30_000);
  let daemon: TestPool;
  let pool: Pool;
  let baseline: Baseline;
  let owner: Owner;
  let socket: net.Socket | undefined;
  let kept: OwnedFd[];
  before(async () => {
    daemon = await startPool();
    pool = await connectPool({ path: daemon.socket });
  });
  after(async () => {
    pool.close();
    await daemon.stop();
  });
  beforeEach(() => {
    baseline = daemon.baseline();
    kept = [];
  });
  afterEach(async () => {
    socket?.destroy();
    for (const fd of kept.splice(0)) sockets.close(fd);
    await owner.kill();
    await expectBaseline(daemon, baseline);
  });

  const target = (port: number) => ({ port, caFile: daemon.caFile });
  const sessions = (): unknown => daemon.status()['sessions'];
  /** Those that have a control key. The status counts what the engine has, which tells of an end a moment after it. */
  const listed = (): number => {
    const wire = new PoolWire(daemon.socket);
    try { return (wire.request('sessions').body['sessions'] as unknown[]).length; } finally { wire.close(); }
  };
  const refused = async (ctlkey: Buffer): Promise<void> => {
    await assert.rejects(pool.request('reattach', { ctlkey }), (error) => error instanceof TlsPoolError && error.code === 'CTLKEY_UNKNOWN');
  };

  /** A session in that state, with the plain text in our hands as well. */
  async function established(state: OwnerState): Promise<{ client: TlsClient; ctlkey: Buffer; plain: OwnedFd }> {
    owner = new Owner(daemon, state);
    const made = await nodeConnect(target(await owner.port));
    socket = made;
    // At once: it may end before the owner has told of it.
    const client = new TlsClient(made);
    const { ctlkey, fd } = await within(owner.ready, 'the session', 15_000, () => owner.program.tail());
    assert.ok(fd !== undefined);
    kept.push(fd);
    return { client, ctlkey, plain: fd };
  }

  async function endsInOrder({ client, ctlkey, plain }: { client: TlsClient; ctlkey: Buffer; plain: OwnedFd }): Promise<void> {
    sockets.send(plain, Buffer.from('the last words'));
    await owner.kill();
    await until(() => client.state !== 'open', { what: 'the client to see the end' });
    assert.deepEqual([client.state, client.received.toString()], ['end', 'the last words'], 'what was written arrives, then close_notify');
    client.socket.destroy();
    await until(() => (sockets.pollWait(plain, 0, 0) & end) !== 0, { what: 'the plain text to end' });
    await refused(ctlkey);
  }

  async function livesOn({ client, ctlkey, plain }: { client: TlsClient; ctlkey: Buffer; plain: OwnedFd }): Promise<void> {
    await owner.kill();
    // In the order of the pool: our request comes after the owner's end.
    await until(() => daemon.status()['clients'] === 2, { what: 'the owner to have left the pool' });
    const went = await pool.reattach(ctlkey, sockets.dup(plain));
    went.write('from the next owner');
    await until(() => client.received.toString() === 'from the next owner', { what: 'octets of the next owner' });
    const answer = event<Buffer>(went, 'data');
    client.socket.write('answer');
    assert.equal((await answer).toString(), 'answer');
    for (const fd of kept.splice(0)) sockets.close(fd);
    went.end();
    client.socket.end();
    await event(went, 'close');
  }

  it('open: the session ends in order, although somebody else has the plain text', async () => { await endsInOrder(await established('open')); });

  it('open and started with fork: it is detached, and lives on', async () => { await livesOn(await established('fork')); });

  it('detached: it lives on', async () => { await livesOn(await established('detached')); });

  it('detached, and the last descriptor of its plain text is closed: it ends in order', async () => {
    const { client, ctlkey, plain } = await established('detached');
    sockets.send(plain, Buffer.from('the last words'));
    await owner.kill();
    assert.equal(client.state, 'open');
    for (const fd of kept.splice(0)) sockets.close(fd);
    await until(() => client.state !== 'open', { what: 'the client to see the end' });
    assert.deepEqual([client.state, client.received.toString()], ['end', 'the last words']);
    client.socket.destroy();
    await until(() => listed() === 0, { what: 'the session to be over' });
    await refused(ctlkey);
  });

  it('told to close: it ends all the same, and nobody can have it', async () => {
    const { client, ctlkey } = await established('closing');
    await owner.kill();
    await until(() => client.state !== 'open', { what: 'the client to see the end' });
    assert.equal(client.state, 'end');
    await refused(ctlkey);
    client.socket.destroy();
  });

  it('in the handshake: the connection is closed, and the pool is rid of it', async () => {
    owner = new Owner(daemon, 'handshake');
    const tcp = net.connect(await owner.port, '127.0.0.1');
    socket = tcp;
    tcp.on('error', () => undefined).resume();
    const closed = event(tcp, 'close');
    await within(owner.ready, 'the handshake to begin');
    await until(() => daemon.status()['handshakes'] === 1, { what: 'the pool to have it' });
    await owner.kill();
    await closed;
    await until(() => daemon.status()['handshakes'] === 0 && sessions() === 0, { what: 'the handshake to be over' });
  });

  it('waiting for its plain-text side: the session is ended, and no key is worth anything', async () => {
    owner = new Owner(daemon, 'waiting');
    const made = await nodeConnect(target(await owner.port));
    socket = made;
    made.on('error', () => undefined).resume();
    const closed = event(made, 'close');
    const { ctlkey } = await within(owner.ready, 'the question for the plain text');
    await owner.kill();
    await closed;
    await refused(ctlkey);
    await until(() => sessions() === 0, { what: 'the session to be over' });
  });

  it('a member of a shared listener: its session ends in order, the other member serves on', async () => {
    const survivor = await pool.listen({ host: '127.0.0.1', port: 0, share: 'owners', localid: 'localhost' });
    try {
      owner = new Owner(daemon, 'member');
      const port = await owner.port;
      // In turn: one of two is for the member.
      const accepted = survivor.accept();
      const [one, two] = [await nodeConnect(target(port)), await nodeConnect(target(port))];
      const { ctlkey, fd } = await within(owner.ready, 'a connection for the member');
      assert.ok(fd !== undefined);
      kept.push(fd);
      const ours = await accepted;
      const [client, other] = ours.remotePort === one.localPort ? [two, one] : [one, two];
      socket = client;
      await endsInOrder({ client: new TlsClient(client), ctlkey, plain: fd });
      other.write('still here');
      assert.equal(String(await event(ours, 'data')), 'still here');
      const next = survivor.accept();
      const third = await nodeConnect(target(port));
      await within(next, 'the surviving member to accept');
      for (const end_ of [third, other, ours, await next]) end_.destroy();
    } finally {
      await survivor.close();
    }
  });
});
