/** Our client role of each preamble against servers that nobody here wrote, with their own STARTTLS and without it. */
import assert from 'node:assert/strict';
import path from 'node:path';
import { connectPool, TlsPoolError } from 'libtlspool';
import type { Pool, PoolSocket, PreambleName, StartTlsOptions } from 'libtlspool';
import { Conversation, dial, preambles } from 'libtlspool/preamble';
import type { Dialogue } from 'libtlspool/preamble';
import { plays, serveOptions } from '../support/dialogue.js';
import { sockets } from 'libtlspool/native';
import { expectBaseline, issue, startPool, tempFolder, within } from '../support/index.js';
import type { Baseline, TestPool } from '../support/index.js';
import { mysqlLogin } from '../support/mysql-login.js';
import {
  account, startDovecot, startInspircd, startMariadb, startMicrosocks, startNgircd, startPostfix, startPostgres, startProsody, startSlapd, startTinyproxy, startVsftpd,
} from '../support/servers/index.js';
import type { ServerOptions, TestServer, TlsFiles } from '../support/servers/index.js';

/** One protocol of a server: what is said behind the handshake, and what the server answers to it. */
interface Talk {
  readonly preamble: PreambleName;
  readonly port: number;
  readonly says: string | Buffer;
  readonly answers: RegExp;
  /** A capability that it has in plain text, for protocols in which there is something to learn. */
  readonly has?: string;
}

interface Case {
  readonly server: string;
  readonly start: (options: ServerOptions) => Promise<{ readonly server: TestServer; readonly talks: readonly Talk[] }>;
}

const hex = (text: string): Buffer => Buffer.from(text.replaceAll(/\s/gu, ''), 'hex');
const startup = Buffer.concat([hex('00000012 00030000'), Buffer.from('user\0joe\0\0')]);
const xmppHeader = (content: string): string => `<stream:stream xmlns='${content}' xmlns:stream='http://etherx.jabber.org/streams' to='${account.domain}' version='1.0'>`;
/** A simple bind as joe, whose DN has 25 octets. */
const bind = Buffer.concat([hex('30 2b 02 01 02 60 26 02 01 03 04 19'), Buffer.from(`uid=${account.user},dc=example,dc=org`), hex('80 06'), Buffer.from(account.password)]);

const cases: readonly Case[] = [
  {
    server: 'Dovecot', start: async (options) => {
      const server = await startDovecot(options);
      return {
        server, talks: [
          { preamble: 'imap', port: server.imap, says: `b LOGIN ${account.user} ${account.password}\r\n`, answers: /^b OK/mu, has: 'IMAP4rev1' },
          { preamble: 'pop3', port: server.pop3, says: `USER ${account.user}\r\nPASS ${account.password}\r\n`, answers: /^\+OK\s.*\+OK Logged in/su, has: 'UIDL' },
          { preamble: 'sieve', port: server.sieve, says: 'NOOP "x"\r\n', answers: /^OK \(TAG "?x"?\)|^OK.*x/mu },
          { preamble: 'lmtp', port: server.lmtp, says: 'LHLO client.example\r\n', answers: /^250 /mu, has: '8BITMIME' },
        ],
      };
    },
  },
  {
    server: 'Postfix', start: async (options) => {
      const server = await startPostfix(options);
      const talk = { port: server.port, says: `EHLO client.example\r\nMAIL FROM:<>\r\nRCPT TO:<${account.address}>\r\n`, answers: /^250 2\.1\.5/mu, has: 'SIZE 10240000' };
      return { server, talks: [{ preamble: 'smtp', ...talk }, { preamble: 'submission', ...talk }] };
    },
  },
  {
    server: 'PostgreSQL', start: async (options) => {
      const server = await startPostgres(options);
      // AuthenticationSASL with SCRAM.
      return { server, talks: [{ preamble: 'postgres', port: server.port, says: startup, answers: /^R\0\0\0.\0\0\0\x0aSCRAM-SHA-256/su }] };
    },
  },
  {
    server: 'OpenLDAP', start: async (options) => {
      const server = await startSlapd(options);
      return { server, talks: [{ preamble: 'ldap', port: server.port, says: bind, answers: /^0\x0c\x02\x01\x02a\x07\x0a\x01\0\x04\0\x04\0$/u }] };
    },
  },
  {
    server: 'Prosody', start: async (options) => {
      const server = await startProsody(options);
      return {
        server, talks: [
          { preamble: 'xmpp-client', port: server.c2s, says: xmppHeader('jabber:client'), answers: /<mechanism>PLAIN<\/mechanism>/u },
          { preamble: 'xmpp-server', port: server.s2s, says: xmppHeader('jabber:server').replace(' to=', ' from=\'client.example\' to='), answers: /<stream:features>/u },
        ],
      };
    },
  },
  {
    server: 'vsftpd', start: async (options) => {
      const server = await startVsftpd(options);
      return { server, talks: [{ preamble: 'ftp', port: server.port, says: 'USER anonymous\r\n', answers: /^(?:230|331) /mu }] };
    },
  },
];

describe('preambles as a client, with real servers', function () {
  this.timeout(120_000);
  let daemon: TestPool;
  let pool: Pool;
  let baseline: Baseline;
  let tls: TlsFiles;
  const servers: TestServer[] = [];

  before(async () => {
    daemon = await startPool({ identities: [{ localid: 'localhost', default: true }, { localid: 'client.example', usage: 'clientAuth', trust: true, policy: 'intermediate' }], config: { log: { level: 'warn' } } });
    pool = await connectPool({ path: daemon.socket });
    const leaf = await issue(daemon.ca, path.join(tempFolder(), 'server'), { commonName: account.domain, sans: [`DNS:${account.domain}`, 'DNS:localhost', 'IP:127.0.0.1'] });
    tls = { ...leaf, caFile: daemon.caFile };
    baseline = daemon.baseline();
  });
  afterEach(async () => {
    await Promise.all(servers.splice(0).map((server) => server.stop()));
    await expectBaseline(daemon, baseline);
  });
  after(async () => {
    pool.close();
    await daemon.stop();
  });

  const started = async <S extends TestServer>(starting: Promise<S>): Promise<S> => {
    const server = await starting;
    servers.push(server);
    return server;
  };

  const secure = async (port: number, options: Omit<StartTlsOptions, 'role'>): Promise<PoolSocket> => {
    const fd = await dial({ host: '127.0.0.1', port }, { deadlineMs: 10_000 });
    const socket = await within(pool.starttls(fd, { role: 'client', remoteid: account.domain, localid: 'client.example', hostname: 'client.example', ...options }), `STARTTLS on port ${port}`);
    // Whoever waits for an answer hears of it, too.
    socket.on('error', () => undefined);
    return socket;
  };

  /** A conversation without TLS. */
  const inPlainText = async <T>(port: number, use: (talk: Conversation) => Promise<T>): Promise<T> => {
    const fd = await dial({ host: '127.0.0.1', port }, { deadlineMs: 10_000 });
    const talk = new Conversation(fd, { deadlineMs: 10_000 });
    try {
      return await use(talk);
    } finally {
      talk.close();
      sockets.close(fd);
    }
  };

  /** Says it, and reads until the answer is there. */
  const exchange = (socket: PoolSocket, says: string | Buffer, answers: RegExp): Promise<void> => within(new Promise<void>((resolve, reject) => {
    let heard = '';
    socket.setEncoding('latin1').on('data', (text: string) => {
      heard += text;
      if (answers.test(heard)) resolve();
    });
    socket.once('error', reject).once('end', () => { reject(new Error(`the server ended after ${JSON.stringify(heard)}`)); });
    socket.write(says);
  }).finally(() => { socket.removeAllListeners('end').destroy(); }), `an answer like ${String(answers)}`);

  const isCode = (code: string) => (error: unknown): boolean => {
    assert(error instanceof TlsPoolError, String(error));
    assert.equal(error.code, code, error.message);
    return true;
  };

  for (const { server: name, start } of cases) {
    it(`${name} with its own STARTTLS goes on behind it, and its certificate is checked`, async () => {
      const { server, talks } = await start({ tls });
      servers.push(server);
      for (const { preamble, port, says, answers } of talks) {
        const socket = await secure(port, { preamble });
        assert.equal(socket.authorized, true);
        await exchange(socket, says, answers);
        await assert.rejects(secure(port, { preamble, servername: account.domain, remoteid: 'other.example' }), preamble.startsWith('xmpp') ? isCode('PREAMBLE_REFUSED') : isCode('CERT_REJECTED'));
      }
    });

    it(`${name} without TLS is PREAMBLE_REFUSED as a server; as a backend it is learnt from`, async () => {
      const { server, talks } = await start({});
      servers.push(server);
      for (const { preamble, port, has } of talks) {
        await assert.rejects(secure(port, { preamble }), isCode('PREAMBLE_REFUSED'));
        const learn = preambles[preamble].server?.learn;
        if (learn === undefined) continue;
        const { capabilities = [] } = await inPlainText(port, (talk) => talk.run(learn(account.domain)));
        assert(has === undefined ? capabilities.length > 0 : capabilities.includes(has), JSON.stringify(capabilities));
      }
    });
  }

  it('Prosody in plain text goes on where a client that does not want TLS thinks it is', async () => {
    const server = await started(startProsody());
    const features = await inPlainText(server.c2s, (talk) => talk.run(preambles['xmpp-client'].server!.learn!(account.domain)));
    const { result } = plays(preambles['xmpp-client'].server!.serve(serveOptions('optional', features)), xmppHeader('jabber:client'), '<auth mechanism="PLAIN" xmlns="urn:ietf:params:xml:ns:xmpp-sasl">');
    assert(result.next === 'plain');
    const { ahead, introduce } = result;
    const answer = await inPlainText(server.c2s, async (talk) => {
      await talk.run(introduce!());
      await talk.write(Buffer.concat([ahead, Buffer.from(`${Buffer.from(`\0${account.user}\0${account.password}`).toString('base64')}</auth>`)]));
      return talk.run((function* hear(): Dialogue<string> { return (yield { do: 'some', most: 1000 }).toString(); })());
    });
    assert.match(answer, /^<success /u);
  });

  it('MariaDB with TLS: the state of the preamble is enough to log in behind it', async () => {
    const server = await started(startMariadb({ tls }));
    const login = async (password: string): Promise<string> => {
      const socket = await secure(server.port, { preamble: 'mysql' });
      try {
        return (await mysqlLogin(socket, socket.preamble!.state!, account.user, password)).subarray(3, 5).toString('hex');
      } finally {
        socket.destroy();
      }
    };
    // Sequence id 3, and OK or ERR.
    assert.equal(await login(account.password), '0300');
    assert.equal(await login('wrong'), '03ff');
  });

  it('MariaDB without TLS is PREAMBLE_REFUSED', async () => {
    const server = await started(startMariadb());
    await assert.rejects(secure(server.port, { preamble: 'mysql' }), isCode('PREAMBLE_REFUSED'));
  });

  it('InspIRCd with STARTTLS registers us behind it', async () => {
    const server = await started(startInspircd({ tls }));
    await exchange(await secure(server.port, { preamble: 'irc' }), 'NICK joe\r\nUSER joe 0 * :Joe\r\n', /^:irc\.example\.org 001 joe /mu);
  });

  it('InspIRCd without TLS is PREAMBLE_REFUSED', async () => {
    const server = await started(startInspircd());
    await assert.rejects(secure(server.port, { preamble: 'irc' }), isCode('PREAMBLE_REFUSED'));
  });

  it('ngIRCd, which has no STARTTLS, is PREAMBLE_REFUSED', async () => {
    const server = await started(startNgircd());
    await assert.rejects(secure(server.port, { preamble: 'irc' }), isCode('PREAMBLE_REFUSED'));
  });

  it('through tinyproxy (CONNECT) to Dovecot: IMAP with STARTTLS behind the tunnel; without credentials PREAMBLE_REFUSED', async () => {
    const dovecot = await started(startDovecot({ tls }));
    const proxy = await started(startTinyproxy());
    const via = { proxy: 'http-connect', host: '127.0.0.1', port: dovecot.imap } as const;
    const { user, password } = account;
    await exchange(await secure(proxy.port, { preamble: 'imap', via: { ...via, credentials: { user, password } } }), 'b NOOP\r\n', /^b OK/mu);
    await assert.rejects(secure(proxy.port, { preamble: 'imap', via }), isCode('PREAMBLE_REFUSED'));
  });

  for (const authenticated of [false, true]) {
    it(`through microsocks (SOCKS5, ${authenticated ? 'with' : 'without'} a password) to Dovecot by name and by address`, async () => {
      const dovecot = await started(startDovecot({ tls }));
      const proxy = await started(startMicrosocks({ authenticated }));
      const { user, password } = account;
      const credentials = authenticated ? { credentials: { user, password } } : {};
      for (const host of ['127.0.0.1', 'localhost']) {
        await exchange(await secure(proxy.port, { preamble: 'imap', via: { proxy: 'socks5', host, port: dovecot.imap, ...credentials } }), 'b NOOP\r\n', /^b OK/mu);
      }
      if (authenticated) await assert.rejects(secure(proxy.port, { preamble: 'imap', via: { proxy: 'socks5', port: dovecot.imap, credentials: { user, password: 'wrong' } } }), isCode('PREAMBLE_REFUSED'));
    });
  }
});
