/** SCRAM-SHA-256-PLUS between programs that ask their pools for channel bindings (RFC 5802, RFC 5929, RFC 9266), and somebody in the middle. */
import assert from 'node:assert/strict';
import type net from 'node:net';
import path from 'node:path';
import { connectPool } from 'libtlspool';
import type { Listener, Pool } from 'libtlspool';
import { App, issue, startPool, tempFolder, within } from '../support/index.js';
import type { TestLeaf, TestPool } from '../support/index.js';
import { proofs } from '../support/scram.js';
import type { BindingType } from '../support/scram.js';
import type { ScramEnd } from '../support/apps/scram-app.js';

const account = { user: 'joe', password: 'correct horse' };
const bindingTypes: readonly BindingType[] = ['tls-exporter', 'tls-server-end-point'];

it('SCRAM of these tests: the proofs are those of RFC 7677 section 3', () => {
  const authMessage = 'n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,' +
    'c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0';
  const { client, server } = proofs('pencil', Buffer.from('W22ZaJ0SNY7soEsUEjb6gQ==', 'base64'), 4096, authMessage);
  assert.equal(client.toString('base64'), 'dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=');
  assert.equal(server.toString('base64'), '6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=');
});

describe('SCRAM-SHA-256-PLUS', function () {
  this.timeout(60_000);
  let serving: TestPool;
  let asking: TestPool;
  let middle: TestPool;
  let leaf: TestLeaf;
  const apps: App[] = [];

  before(async () => {
    const identity = { localid: 'localhost', policy: 'intermediate', default: true } as const;
    serving = await startPool({ identities: [identity] });
    const roots = { trust: { roots: [serving.caFile] } };
    asking = await startPool({ identities: [], config: roots });
    // An authority that the client trusts has given the man in the middle a certificate in the server's name.
    middle = await startPool({ identities: [{ ...identity, ca: serving.ca }], config: roots });
    leaf = await issue(serving.ca, path.join(tempFolder(), 'leaf'), { commonName: 'localhost', sans: ['DNS:localhost', 'IP:127.0.0.1'] });
  });
  after(async () => { for (const daemon of [serving, asking, middle]) await daemon.stop(); });
  afterEach(async () => { for (const app of apps.splice(0)) await app.stop('SIGKILL'); });

  function start(end: Omit<ScramEnd, 'account'>, as = account): App {
    const app = new App('scram-app', end.role === 'server' ? serving : asking, [JSON.stringify({ ...end, account: as })]);
    apps.push(app);
    return app;
  }

  /** What both ends say of it: the server's word, the client's word. */
  async function exchange(server: Partial<ScramEnd>, client: Partial<ScramEnd>, through: (port: number) => Promise<number> = (port) => Promise.resolve(port), as = account): Promise<[string, string]> {
    const one = start({ role: 'server', by: 'pool', ...server });
    const outcome = one.told<string>('outcome');
    outcome.catch(() => undefined);
    const port = await through(await one.told<number>('port'));
    const other = start({ role: 'client', by: 'pool', port, ...client }, as);
    return [await other.told<string>('outcome'), await outcome];
  }
  const succeeds = ['authenticated', 'authenticated'];

  for (const type of bindingTypes) {
    it(`${type}: two programs with a pool each have the same octets`, async () => {
      assert.deepEqual(await exchange({}, { type }), succeeds);
    });

    for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
      it(`${type}, ${version}: the pool's octets are those of Node's own TLS, on either side`, async () => {
        assert.deepEqual(await exchange({}, { type, by: 'node', version, caFile: serving.caFile }), succeeds);
        assert.deepEqual(await exchange({ by: 'node', version, ...leaf }, { type }), succeeds);
      });
    }
  }

  it('tls-unique, TLSv1.2: the pool\'s octets are those of Node\'s own TLS, on either side', async () => {
    assert.deepEqual(await exchange({}, { type: 'tls-unique', by: 'node', version: 'TLSv1.2', caFile: serving.caFile }), succeeds);
    assert.deepEqual(await exchange({ by: 'node', version: 'TLSv1.2', ...leaf }, { type: 'tls-unique' }), succeeds);
  });

  it('tls-unique, TLSv1.3: there is none (RFC 9266 section 1), and the server says so', async () => {
    assert.deepEqual(await exchange({}, { type: 'tls-unique' }), ['unsupported-channel-binding-type', 'unsupported-channel-binding-type']);
  });

  it('a wrong password is refused, whatever the binding', async () => {
    assert.deepEqual(await exchange({}, { type: 'tls-exporter' }, undefined, { ...account, password: 'wrong' }), ['invalid-proof', 'invalid-proof']);
  });

  describe('a man in the middle whose certificate the client accepts', () => {
    let pool: Pool;
    let listener: Listener;
    beforeEach(async () => {
      pool = await connectPool({ path: middle.socket });
      listener = await pool.listen({ host: '127.0.0.1', port: 0, localid: 'localhost' });
    });
    afterEach(async () => {
      await listener.close();
      pool.close();
    });

    /** Ends TLS on both sides and passes everything on. */
    async function between(port: number): Promise<number> {
      void (async () => {
        const victim = await listener.accept();
        const onwards = await pool.connect({ host: '127.0.0.1', port, servername: 'localhost', remoteid: 'localhost' });
        for (const socket of [victim, onwards]) socket.on('error', () => undefined);
        victim.pipe(onwards).pipe(victim);
      })();
      return within(Promise.resolve((listener.address() as net.AddressInfo).port), 'the man in the middle');
    }

    for (const type of bindingTypes) {
      it(`${type}: is found out by the server, and the password is of no use to him`, async () => {
        assert.deepEqual(await exchange({}, { type }, between), ['channel-bindings-dont-match', 'channel-bindings-dont-match']);
      });
    }

    it('without PLUS he is not: it is the binding that finds him out', async () => {
      assert.deepEqual(await exchange({}, {}, between), succeeds);
    });
  });
});
