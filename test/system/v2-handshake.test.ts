/** The V2 dialect with a C program: full handshakes in both roles, against OpenSSL and against itself, and what can be done with the session afterwards. */
import assert from 'node:assert/strict';
import path from 'node:path';
import { expectBaseline, needProgram, Program, sClient, until } from '../support/index.js';
import type { Baseline, Target } from '../support/index.js';
import { startV2Pool, V2Program } from '../support/v2/index.js';
import type { V2Pool } from '../support/v2/index.js';

const keyA = '000102030405060708090a0b0c0d0e0f';
const keyB = 'f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff';
const server = '6';
const client = '9';
/** Local role server, remote role client, IGNORE_REMOTEID. */
const anonymousServer = '1006';
const codes = { NOT_FOUND: -1167372273, DETACHED: -1167372271, ATTACHED: -1167372270 };
const errorLine = (code: number): RegExp => new RegExp(`^error ${String(code)} reqid=\\d+ cbid=0 TLS Pool `, 'u');

describe('V2: handshakes of a C program', () => {
  let v2: V2Pool;
  let baseline: Baseline;
  let programs: V2Program[];
  let others: Program[];
  before(async () => { v2 = await startV2Pool(); });
  after(() => v2.pool.stop());
  beforeEach(() => {
    baseline = v2.pool.baseline();
    programs = [];
    others = [];
  });
  afterEach(async () => {
    for (const program of programs) if (program.program.running) await program.end();
    for (const other of others) if (other.running) other.kill('SIGKILL');
    await expectBaseline(v2.pool, baseline);
  });

  const start = async (): Promise<V2Program> => {
    const program = await V2Program.start(v2.socket);
    programs.push(program);
    return program;
  };
  const target = (port: number): Target => ({ port, caFile: v2.pool.caFile });
  const alice = (): Target['client'] => ({ certFile: path.join(v2.pool.identityDir('alice'), 'tls.crt'), keyFile: path.join(v2.pool.identityDir('alice'), 'tls.key') });

  /** Server and client of one TLS connection, each a process, each through the pool. */
  async function connected(serverFlags = anonymousServer, clientFlags = client): Promise<[V2Program, V2Program]> {
    const [one, two] = [await start(), await start()];
    const port = await one.listen();
    await two.ok(`connect ${String(port)}`);
    await one.ok('accept');
    one.say(`starttls ${serverFlags} localhost - 0 ${keyA}`);
    const left = await two.starttls(`${clientFlags} ${serverFlags === server ? 'alice' : '-'} localhost 0 ${keyB}`);
    const right = await one.starttlsAnswer();
    for (const { callbacks, last } of [left, right]) {
      assert.deepEqual(callbacks.map((line) => line.replace(/cbid=\d+/u, 'cbid')), ['callback 2a cbid localid= remoteid=']);
      assert.match(last, /^starttls /u);
    }
    return [one, two];
  }

  it('PING names the protocol and the facilities that there are', async () => {
    assert.equal(await (await start()).ask('ping somebody@example.org ffffffff'), 'ping 20151111api@tlspool.arpa2.net facilities=1');
  });

  for (const version of ['-tls1_2', '-tls1_3']) {
    it(`server role: openssl s_client ${version} talks to the program, in plain text on its side`, async () => {
      const program = await start();
      const port = await program.listen();
      const peer = sClient({ ...target(port), client: alice() } as Target, ['-no_ign_eof', version, '-keymatexport', 'EXPERIMENTAL-test', '-keymatexportlen', '32']);
      others.push(peer);
      await program.ok('accept');
      const { callbacks, last } = await program.starttls(`${server} localhost - 0 ${keyA}`);
      assert.equal(callbacks.length, 1);
      assert.equal(last, `starttls flags=6 reqid=0 cbid=1024 localid= remoteid= key=${keyA}`);
      await program.ok('write hello');
      await peer.output(/hello/u, 'stdout');
      peer.write('world');
      assert.equal(await program.ask('read 5'), 'read world');
      assert.match(await program.ask(`info ${keyA} 59290000`), version === '-tls1_2' ? /^info [0-9a-f]{24}$/u : errorLine(-1167372259), 'tls-unique');
      const [, exported = ''] = await peer.output(/Keying material: ([0-9A-F]{64})/u, 'stdout');
      assert.equal(await program.ask(`prng ${keyA} EXPERIMENTAL-test - 32`), `prng ${exported.toLowerCase()}`, 'without a context, as OpenSSL exports it');
      const withContext = await program.ask(`prng ${keyA} EXPERIMENTAL-test = 32`);
      // RFC 5705 section 4: no context and an empty one are different; RFC 8446 section 7.5: they are the same.
      assert.equal(withContext === `prng ${exported.toLowerCase()}`, version === '-tls1_3');
      await program.ok('close');
    });
  }

  it('server role: a client without a certificate is refused unless the flags say otherwise', async () => {
    const program = await start();
    const port = await program.listen();
    for (const [flags, isFine, key] of [['6', false, keyA], ['806', true, keyA], ['1006', true, keyB]] as const) {
      const peer = sClient(target(port), ['-quiet', '-no_ign_eof', '-tls1_2']);
      others.push(peer);
      await program.ok('accept');
      const { last } = await program.starttls(`${flags} localhost - 0 ${key}`);
      if (isFine) {
        assert.match(last, new RegExp(`^starttls flags=${flags} `, 'u'));
        await program.ok('close');
      } else {
        assert.match(last, errorLine(-1167372264));
      }
    }
  });

  it('client role: the program talks to openssl s_server and shows the certificate of its localid', async () => {
    const folder = v2.pool.identityDir('localhost');
    const peer = new Program(needProgram('openssl', 'openssl'), [
      's_server', '-accept', '127.0.0.1:0', '-cert', path.join(folder, 'tls.crt'), '-key', path.join(folder, 'tls.key'), '-Verify', '1', '-CAfile', v2.pool.caFile,
      '-verify_return_error', '-naccept', '1',
    ]);
    others.push(peer);
    const [, port] = await peer.output(/ACCEPT [^\n]*:(\d+)/u, 'stdout');
    const program = await start();
    await program.ok(`connect ${String(port)}`);
    const { last } = await program.starttls(`${client} alice someone@localhost 0 ${keyA}`);
    assert.match(last, /^starttls flags=9 /u);
    await peer.output(/subject=CN = alice/u);
    await program.ok('write hello');
    await peer.output(/hello/u, 'stdout');
    await program.ok('close');
  });

  it('client role: a server with another name is refused', async () => {
    const [one, two] = [await start(), await start()];
    const port = await one.listen();
    await two.ok(`connect ${String(port)}`);
    await one.ok('accept');
    one.say(`starttls ${anonymousServer} localhost - 0 ${keyA}`);
    // No SNI for the server to stumble over: it is the client that looks.
    assert.match((await two.starttls(`${client} - other.example 0 ${keyB}`)).last, errorLine(-1167372264));
    assert.match((await one.starttlsAnswer()).last, errorLine(-1167372264));
  });

  it('both roles: octets and both ends of the stream arrive', async () => {
    const [one, two] = await connected(server);
    await one.ok('write ping');
    assert.equal(await two.ask('read 4'), 'read ping');
    await two.ok('write pong');
    await two.ok('shutdown');
    assert.equal(await one.ask('read 64'), 'read pong');
    await one.ok('write late');
    await one.ok('shutdown');
    assert.equal(await two.ask('read 64'), 'read late');
    await Promise.all([one.ok('close'), two.ok('close')]);
    await until(async () => errorLine(codes.NOT_FOUND).test(await one.ask(`prng ${keyA} EXPERIMENTAL-test - 1`)), { what: 'the control key to be gone with the session' });
  });

  it('the plain-text side may be a UNIX seqpacket socket', async () => {
    const [one, two] = [await start(), await start()];
    await one.ok('plainkind seqpacket');
    const port = await one.listen();
    await two.ok(`connect ${String(port)}`);
    await one.ok('accept');
    one.say(`starttls ${anonymousServer} localhost - 0 ${keyA}`);
    await two.starttls(`${client} - localhost 0 ${keyB}`);
    assert.match((await one.starttlsAnswer()).last, /^starttls /u);
    await one.ok('write hello');
    assert.equal(await two.ask('read 5'), 'read hello');
    await two.ok('write world');
    assert.equal(await one.ask('read 5'), 'read world');
  });

  it('LOCALID_CHECK: the program is told the name before the handshake, and may bring its plain-text side at once', async () => {
    for (const isEarly of [false, true]) {
      const program = await start();
      if (isEarly) await program.ok('atlocalid');
      const port = await program.listen();
      const peer = sClient(target(port), ['-quiet', '-no_ign_eof']);
      others.push(peer);
      await program.ok('accept');
      const { callbacks, last } = await program.starttls(`11006 - somebody@example.org 0 ${keyA}`);
      assert.deepEqual(callbacks, [
        'callback 28 cbid=1024 localid=localhost remoteid=somebody@example.org', ...(isEarly ? [] : ['callback 2a cbid=1024 localid= remoteid=']),
      ]);
      assert.equal(last, `starttls flags=11006 reqid=0 cbid=1024 localid= remoteid= key=${keyA}`);
      await program.ok('write hello');
      await peer.output(/hello/u, 'stdout');
      await program.ok('close');
      await program.end();
    }
  });

  it('LOCALID_CHECK in the client role: the program is asked when the server wants a certificate', async () => {
    const [one, two] = [await start(), await start()];
    const port = await one.listen();
    await two.ok(`connect ${String(port)}`);
    await one.ok('accept');
    one.say(`starttls ${server} localhost - 0 ${keyA}`);
    const { callbacks, last } = await two.starttls(`10009 alice localhost 0 ${keyB}`);
    assert.deepEqual(callbacks.map((line) => line.replace(/cbid=\d+/u, 'cbid')), ['callback 28 cbid localid=alice remoteid=localhost', 'callback 2a cbid localid= remoteid=']);
    assert.match(last, /^starttls /u);
    assert.match((await one.starttlsAnswer()).last, /^starttls /u);
  });

  it('detach and reattach from a second process, in the order in which testcli does it', async () => {
    const [one, two] = await connected();
    assert.match(await one.ask(`reattach ${keyA}`), errorLine(codes.ATTACHED));
    assert.match(await one.ask(`detach ${keyA}`), /^success cmd=0 /u);
    assert.match(await one.ask(`detach ${keyA}`), errorLine(codes.DETACHED));
    const second = await start();
    assert.match(await second.ask(`prng ${keyA} EXPERIMENTAL-test - 32`), errorLine(codes.NOT_FOUND));
    assert.match(await second.ask(`reattach ${keyA}`), /^success cmd=0 /u);
    assert.match(await second.ask(`reattach ${keyA}`), errorLine(codes.ATTACHED));
    assert.match(await second.ask(`prng ${keyA} EXPERIMENTAL-test - 32`), /^prng [0-9a-f]{64}$/u);
    assert.match(await one.ask(`prng ${keyA} EXPERIMENTAL-test - 32`), errorLine(codes.NOT_FOUND));
    await one.ok('write hello');
    assert.equal(await two.ask('read 5'), 'read hello');
  });

  it('prng gives both ends the same octets, and others for another label or context', async () => {
    const [one, two] = await connected();
    const seen = new Set<string>();
    for (const asked of ['EXPERIMENTAL-test - 32', 'EXPERIMENTAL-test context 32', 'EXPERIMENTAL-other - 32', 'EXPERIMENTAL-test - 350']) {
      const octets = await one.ask(`prng ${keyA} ${asked}`);
      assert.match(octets, /^prng (?:[0-9a-f]{2})+$/u);
      assert.equal(await two.ask(`prng ${keyB} ${asked}`), octets, asked);
      seen.add(octets);
    }
    assert.equal(seen.size, 4);
    assert.equal(await one.ask(`prng ${keyA} EXPERIMENTAL-test = 32`), await two.ask(`prng ${keyB} EXPERIMENTAL-test - 32`), 'RFC 8446 section 7.5: no context is an empty one');
  });

  it('info: each end sees the subject of the other as that one sees its own', async () => {
    const [one, two] = await connected(server);
    const names = { subject: ['52800000', '52800100'], issuer: ['52800001', '52800101'] } as const;
    for (const [peer, mine] of Object.values(names)) {
      const own = await one.ask(`info ${keyA} ${mine}`);
      assert.match(own, /^info 30(?:[0-9a-f]{2})+$/u, 'a DER Name');
      assert.equal(await two.ask(`info ${keyB} ${peer}`), own);
      assert.equal(await one.ask(`info ${keyA} ${peer}`), await two.ask(`info ${keyB} ${mine}`));
    }
    const dns = `8209${Buffer.from('localhost').toString('hex')}`;
    assert.equal(await two.ask(`info ${keyB} 52800002 ${dns}`), `info ${dns}`);
    assert.match(await two.ask(`info ${keyB} 52800002 8208${Buffer.from('localhos').toString('hex')}`), errorLine(-1167372259));
    assert.match(await two.ask(`info ${keyB} 52800002`), errorLine(-1167372259));
    const email = `8111${Buffer.from('alice@example.org').toString('hex')}`;
    assert.equal(await one.ask(`info ${keyA} 52800002 ${email}`), `info ${email}`);
  });

  it('data flows on after the program is killed, with whoever has its plain-text side; its control key does not', async () => {
    const [one, two] = await connected();
    await one.ok('echo');
    await one.kill();
    await two.ok('write hello');
    assert.equal(await two.ask('read 5'), 'read hello');
    assert.match(await (await start()).ask(`reattach ${keyA}`), errorLine(codes.NOT_FOUND));
    await two.ok('write again');
    assert.equal(await two.ask('read 5'), 'read again');
  });

  for (const [flag, value] of [['FORK', '4000'], ['DETACH', '2000']] as const) {
    it(`with ${flag} the control key outlives the program, too`, async () => {
      const [one, two] = await connected((0x1006 | Number.parseInt(value, 16)).toString(16));
      await one.ok('echo');
      await one.kill();
      const second = await start();
      assert.match(await second.ask(`reattach ${keyA}`), /^success cmd=0 /u);
      assert.match(await second.ask(`prng ${keyA} EXPERIMENTAL-test - 16`), /^prng [0-9a-f]{32}$/u);
      await two.ok('write hello');
      assert.equal(await two.ask('read 5'), 'read hello');
    });
  }
});
