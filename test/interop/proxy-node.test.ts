/** Servers in Node that take connections from the proxy by accept(), without a line about TLS: the npm package smtp-server, and the IMAP server of examples/mailbox. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { ImapFlow } from 'imapflow';
import { connectPool, listenForHandoff, withoutGreeting } from 'libtlspool';
import type { HandoffListener, Pool, PoolSocket } from 'libtlspool';
import { createTransport } from 'nodemailer';
import { SMTPServer } from 'smtp-server';
import { issue, makeCa, PlainClient, repoRoot, tempFolder, until, within } from '../support/index.js';
import type { TestCa, TestLeaf } from '../support/index.js';
import { account } from '../support/servers/index.js';
import { curlTls, Front, login, mbsync, swaks } from './proxy-support.js';

const { user, password, address } = account;

/** What examples/mailbox gives. */
interface Inbox { readonly mails: readonly { readonly text: string }[]; add(text: string): void }
interface Mailbox { readonly Inbox: new () => Inbox; readonly serveImap: (socket: PoolSocket, service: object) => Promise<void> }

const example = (name: string): Promise<unknown> => import(pathToFileURL(path.join(repoRoot, 'examples/mailbox', name)).href);

/** What a server hears of a connection beside its octets. */
interface Known {
  readonly service: string;
  readonly encrypted: boolean;
  readonly authorized: boolean;
  readonly commonName: string | undefined;
  readonly remotePort: number | undefined;
  readonly exporter: string;
}

describe('proxy: servers in Node that take connections by accept()', function () {
  this.timeout(60_000);
  let front: Front;
  let pool: Pool;
  let inbox: Inbox;
  let mailbox: Mailbox;
  let client: TestLeaf;
  const listeners: HandoffListener[] = [];
  const known: Known[] = [];
  const label = 'EXPERIMENTAL-test';

  const smtp = new SMTPServer({
    secure: true, secured: true, disabledCommands: ['STARTTLS'], disableReverseLookup: true, logger: false, authMethods: ['PLAIN', 'LOGIN'], authOptional: true,
    onSecure: (socket, _session, done) => { done(); socket.resume(); },
    onAuth: (auth, _session, done) => { if (auth.username === user && auth.password === password) done(null, { user }); else done(new Error('wrong password')); },
    onData(stream, _session, done) {
      const chunks: Buffer[] = [];
      stream.on('data', (chunk: Buffer) => { chunks.push(chunk); }).once('end', () => { inbox.add(Buffer.concat(chunks).toString('latin1')); done(); });
    },
  });
  const serveSmtp = (socket: PoolSocket): void => {
    smtp.connect(withoutGreeting(socket, socket.preamble?.protocol ?? 'smtp'));
    // It hangs up on clients that speak before its greeting, which this one had from the proxy.
    socket.pause();
  };
  const serveImap = (socket: PoolSocket): void => { void mailbox.serveImap(socket, { inbox, user, password, greets: false }); };

  const acceptAll = async (service: string, listener: HandoffListener, serve: (socket: PoolSocket) => void): Promise<void> => {
    for await (const socket of listener) {
      socket.on('error', () => undefined);
      const { encrypted, authorized, remotePort } = socket;
      known.push({ service, encrypted, authorized, commonName: socket.getPeerCertificate().subject?.CN as string | undefined, remotePort, exporter: socket.exportKeyingMaterial(32, label).toString('hex') });
      serve(socket);
    }
  };

  before(async () => {
    smtp.on('error', () => undefined);
    mailbox = { ...await example('imap.mjs') as object, ...await example('inbox.mjs') as object } as Mailbox;
    inbox = new mailbox.Inbox();
    const folder = tempFolder();
    const fd = (name: string): string => path.join(folder, `${name}.sock`);
    front = await Front.start({
      imap: { protocol: 'imap', backend: { fd: fd('imap') } },
      smtp: { protocol: 'smtp', clientAuth: 'request', backend: { fd: fd('smtp') } },
      relayed: { protocol: 'submission', clientAuth: 'require', backend: { fd: fd('relayed'), relay: true } },
    }, { identities: [{ localid: 'localhost', default: true, trust: true }] });
    client = await issue(front.pool.ca, path.join(folder, 'client'), { commonName: 'anna.example.net', sans: ['DNS:anna.example.net'], usage: 'clientAuth' });
    pool = await connectPool({ path: front.pool.socket });
    for (const [name, serve] of [['imap', serveImap], ['smtp', serveSmtp], ['relayed', serveSmtp]] as const) {
      const listener = await listenForHandoff({ path: fd(name), reattach: name === 'relayed' ? false : pool });
      listeners.push(listener);
      void acceptAll(name, listener, serve);
    }
    front.settled();
  });
  after(async () => {
    await front.stop();
    for (const listener of listeners) await listener.close();
    pool.close();
  });
  beforeEach(() => { known.length = 0; });

  const tlsOf = (leaf?: TestLeaf): object => ({ ca: readFileSync(front.pool.caFile), servername: 'localhost', ...(leaf !== undefined && { cert: readFileSync(leaf.certFile), key: readFileSync(leaf.keyFile) }) });
  const send = async (service: string, subject: string, leaf?: TestLeaf, attachment = Buffer.from('nothing')): Promise<void> => {
    const transport = createTransport({ host: '127.0.0.1', port: front.target(service).port, requireTLS: true, tls: tlsOf(leaf), auth: { user, pass: password } });
    try {
      await transport.sendMail({ from: 'anna@example.net', to: address, subject, text: 'See attachment.', attachments: [{ filename: 'octets', content: attachment }] });
    } finally {
      transport.close();
    }
  };
  /** Attachment of the mail with this subject, as imapflow reads it. */
  const fetch = async (subject: string): Promise<Buffer> => {
    const flow = new ImapFlow({ host: '127.0.0.1', port: front.target('imap').port, secure: false, doSTARTTLS: true, servername: 'localhost', tls: tlsOf(), auth: { user, pass: password }, logger: false });
    await flow.connect();
    assert.equal(flow.secureConnection, true);
    const lock = await flow.getMailboxLock('INBOX');
    try {
      const found = await flow.search({ subject }, { uid: true }) || [];
      assert.equal(found.length, 1);
      const { content } = await flow.download(String(found[0]), undefined, { uid: true });
      const chunks: Buffer[] = [];
      for await (const chunk of content as AsyncIterable<Buffer>) chunks.push(chunk);
      return Buffer.concat(chunks);
    } finally {
      lock.release();
      await flow.logout();
    }
  };

  for (const [service, how] of [['smtp', 'and asks the pool about it'], ['relayed', 'and asks the proxy about it, which relays']] as const) {
    it(`${service}: smtp-server takes a mail from nodemailer, sees the client certificate ${how}; imapflow reads the mail`, async () => {
      const attachment = randomBytes(300_000);
      await send(service, `by ${service}`, client, attachment);
      const [{ encrypted, authorized, commonName } = assert.fail('nobody came')] = known;
      assert.deepEqual([encrypted, authorized, commonName], [true, true, 'anna.example.net']);
      const source = (await fetch(`by ${service}`)).toString('latin1');
      assert(source.includes(attachment.toString('base64').match(/.{1,76}/gu)!.join('\r\n')));
      assert.equal(known.at(-1)?.service, 'imap');
    });

    it(`${service}: both ends derive the same key from the session, and the server knows the client's port`, async () => {
      const plain = await PlainClient.connect(front.target(service).port);
      await plain.askForTls('smtp');
      const secured = await plain.secure({ caFile: front.pool.caFile, client });
      await secured.ask('EHLO client.example\r\n', /^250 .*\r\n/mu);
      const [{ exporter, remotePort } = assert.fail('nobody came')] = known;
      assert.equal(exporter, secured.socket.exportKeyingMaterial(32, label, Buffer.alloc(0)).toString('hex'));
      assert.equal(remotePort, plain.socket.localPort);
      await secured.ask('QUIT\r\n', /^221 /mu);
      await secured.finish();
    });
  }

  const refusedWith = async (expected: string): Promise<void> => {
    await until(() => front.proxy.connections().some(({ service, code }) => service === 'relayed' && code === expected), { what: `${expected} in the log`, context: () => JSON.stringify(front.proxy.connections().slice(-3)) });
  };

  it('a client without a certificate is served where one is requested, and not where one is required', async () => {
    await send('smtp', 'without a certificate');
    assert.deepEqual(known.map(({ authorized, commonName }) => [authorized, commonName]), [[false, undefined]]);
    await assert.rejects(send('relayed', 'never'), /alert certificate required|ECONNRESET|EPIPE|closed/u);
    assert.equal(known.length, 1, 'smtp-server has not heard of it');
    await refusedWith('HANDSHAKE_FAILED');
  });

  it('a certificate of somebody else is refused at the handshake', async () => {
    const stranger = await issue(await makeStranger(), path.join(tempFolder(), 'stranger'), { commonName: 'anna.example.net', sans: ['DNS:anna.example.net'], usage: 'clientAuth' });
    await assert.rejects(send('relayed', 'never', stranger), /alert unknown ca|ECONNRESET|EPIPE|closed/u);
    await refusedWith('CERT_REJECTED');
    assert.deepEqual(known, []);
  });

  it('swaks, curl and mbsync get along with them, too', async () => {
    assert.match(await swaks(front.target('smtp'), 'Subject: by swaks\n\n.dots\n', ['--auth', 'PLAIN', '--auth-user', user, '--auth-password', password]), /~> AUTH PLAIN [^]*<~ {2}235 [^]*~> QUIT/u);
    assert.match((await curlTls(front.target('imap'), 'imap://HOST/INBOX?SUBJECT%20swaks', login)).stdout, /^\* SEARCH \d+\r\n$/u);
    const messages = await mbsync(front.target('imap'));
    assert.equal(messages.length, inbox.mails.length);
    assert(messages.some((text) => /Subject: by swaks\n[^]*\n\n\.dots\n/u.test(text)));
  });

  it('a wrong password is refused by the servers themselves, behind TLS', async () => {
    const { code } = await curlTls(front.target('imap'), 'imap://HOST/', ['--user', `${user}:wrong`], false);
    assert.equal(code, 67);
    const transport = createTransport({ host: '127.0.0.1', port: front.target('smtp').port, requireTLS: true, tls: tlsOf(), auth: { user, pass: 'wrong' } });
    await within(assert.rejects(transport.verify(), /Invalid login: 535/u), 'a refusal');
    transport.close();
    assert.deepEqual(known.map(({ service }) => service), ['imap', 'smtp']);
  });
});

const makeStranger = async (): Promise<TestCa> => makeCa(path.join(tempFolder(), 'ca'), 'nobody');
