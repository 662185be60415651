/** Prosody, ngIRCd, InspIRCd and vsftpd without TLS behind the proxy. */
import assert from 'node:assert/strict';
import { PlainClient } from '../support/index.js';
import { account, startInspircd, startNgircd, startProsody, startVsftpd } from '../support/servers/index.js';
import type { InspircdServer, NgircdServer, ProsodyServer, VsftpdServer } from '../support/servers/index.js';
import { ByHand, curlTls, Front } from './proxy-support.js';

const { user, password, domain } = account;

describe('proxy: Prosody, IRC servers and vsftpd without TLS behind it', function () {
  this.timeout(60_000);
  let prosody: ProsodyServer;
  let ngircd: NgircdServer;
  let inspircd: InspircdServer;
  let vsftpd: VsftpdServer;
  let front: Front;

  before(async () => {
    [prosody, ngircd, inspircd, vsftpd] = await Promise.all([startProsody(), startNgircd(), startInspircd(), startVsftpd()]);
    const service = (protocol: string, port: number): { protocol: string; hostname: string; backend: object } => ({ protocol, hostname: domain, backend: { connect: `127.0.0.1:${String(port)}` } });
    front = await Front.start({
      'xmpp-client': service('xmpp-client', prosody.c2s), 'xmpp-server': service('xmpp-server', prosody.s2s), ngircd: service('irc', ngircd.port), inspircd: service('irc', inspircd.port), ftp: service('ftp', vsftpd.port),
    });
  });
  after(async () => {
    await front.stop();
    await Promise.all([prosody, ngircd, inspircd, vsftpd].map((server) => server.stop()));
  });

  describe('Prosody', () => {
    const header = (content: string, from = ''): string => `<?xml version='1.0'?><stream:stream xmlns='jabber:${content}' xmlns:stream='http://etherx.jabber.org/streams'${from} to='${domain}' version='1.0'>`;
    const sasl = 'urn:ietf:params:xml:ns:xmpp-sasl';
    const plain = (secret: string): string => `<auth xmlns='${sasl}' mechanism='PLAIN'>${Buffer.from(`\0${user}\0${secret}`).toString('base64')}</auth>`;
    const starttls = "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";

    it('a client is offered STARTTLS and nothing else, and may not log in before it', async () => {
      const direct = await PlainClient.connect(prosody.c2s);
      await direct.ask(header('client'), /<mechanism>PLAIN<\/mechanism>/u);
      direct.close();
      const client = await PlainClient.connect(front.target('xmpp-client').port);
      const offered = await client.ask(header('client'), /<\/stream:features>/u);
      assert.match(offered, /<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required\/><\/starttls><\/stream:features>$/u);
      await client.ask(plain(password), /<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><encryption-required\/><\/failure>/u);
      client.close();
    });

    it('a client logs in behind STARTTLS, binds a resource, and gets an answer from itself', async () => {
      const client = await PlainClient.connect(front.target('xmpp-client').port);
      await client.ask(header('client'), /<\/stream:features>/u);
      await client.ask(starttls, /<proceed /u);
      const secured = await client.secure({ caFile: front.pool.caFile });
      await secured.ask(header('client'), /<mechanism>PLAIN<\/mechanism>.*<\/stream:features>/su);
      await secured.ask(plain('wrong'), /<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><not-authorized\/>/u);
      await secured.ask(plain(password), /<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/u);
      await secured.ask(header('client'), /<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'.*<\/stream:features>/su);
      await secured.ask("<iq id='1' type='set'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>here</resource></bind></iq>", new RegExp(`<jid>${user}@${domain.replace('.', '\\.')}/here</jid>`, 'u'));
      await secured.ask(`<message to='${user}@${domain}/here' type='chat'><body>hello</body></message>`, /<message [^>]*><body>hello<\/body><\/message>/u);
      await secured.ask('</stream:stream>', /<\/stream:stream>/u);
      await secured.finish();
    });

    it('openssl s_client -starttls xmpp: Prosody opens a new stream behind it', async () => {
      const client = new ByHand(front.target('xmpp-client'), ['-starttls', 'xmpp', '-xmpphost', domain]);
      const heard = await client.ask(header('client'), /<\/stream:features>/u);
      assert.match(heard, /<mechanism>PLAIN<\/mechanism>/u);
      assert.doesNotMatch(heard, /<starttls/u);
      await client.ask('</stream:stream>', /<\/stream:stream>/u);
      await client.quit();
    });

    it('openssl s_client -starttls xmpp-server: Prosody talks with another server behind it', async () => {
      const client = new ByHand(front.target('xmpp-server'), ['-starttls', 'xmpp-server', '-xmpphost', domain]);
      const heard = await client.ask(header('server', " from='other.example'"), /<stream:features.*(?:<\/stream:features>|\/>)/su);
      assert.match(heard, new RegExp(`<stream:stream [^>]*from='${domain}'`, 'u'));
      assert.doesNotMatch(heard, /<starttls/u);
      await client.ask('</stream:stream>', /<\/stream:stream>/u);
      await client.quit();
    });
  });

  for (const name of ['ngircd', 'inspircd'] as const) {
    it(`${name}: a name in plain text is forgotten; two users that s_client -starttls irc brings in talk with each other`, async () => {
      const early = await PlainClient.connect(front.target(name).port);
      await early.ask('NICK mallory\r\nUSER mallory 0 * :Mallory\r\n', / 451 \* :STARTTLS first/u);
      const users = ['anna', 'bert'].map((nick) => ({ nick, client: new ByHand(front.target(name), ['-starttls', 'irc']) }));
      for (const { nick, client } of users) {
        await client.ask(`NICK ${nick}\r\nUSER ${nick} 0 * :${nick}\r\n`, new RegExp(`:irc\\.example\\.org 001 ${nick} `, 'u'));
        await client.ask('JOIN #tls\r\n', new RegExp(`:irc\\.example\\.org 366 ${nick} #tls `, 'u'));
      }
      const [anna, bert] = users.map(({ client }) => client);
      assert(anna !== undefined && bert !== undefined);
      bert.type('PRIVMSG #tls :hello\r\n');
      await anna.hear(/^:bert!\S+ PRIVMSG #tls :hello\r\n/mu);
      await anna.ask('WHOIS mallory\r\n', / 401 anna mallory /u);
      for (const client of [anna, bert]) {
        await client.ask('QUIT :bye\r\n', /^ERROR :/mu);
        await client.quit();
      }
      early.close();
    });
  }

  describe('vsftpd', () => {
    it('its own greeting and features are shown before TLS, with AUTH TLS, and there is no USER', async () => {
      const features = async (port: number): Promise<{ greeting: string | undefined; words: readonly string[]; client: PlainClient }> => {
        const client = await PlainClient.connect(port);
        await client.hears(/^220 .*\r\n/mu);
        const words = [...(await client.ask('FEAT\r\n', /^211 .*\r\n/mu)).matchAll(/^ (.*)\r$/gmu)].map(([, word = '']) => word);
        return { greeting: /^220 (.*)\r$/mu.exec(client.text)?.[1], words, client };
      };
      const own = await features(vsftpd.port);
      const shown = await features(front.target('ftp').port);
      assert(own.words.length > 0);
      assert.equal(shown.greeting, own.greeting);
      assert.deepEqual([...shown.words].sort(), [...own.words, 'AUTH TLS'].sort());
      await shown.client.ask('USER anonymous\r\n', /^530 /mu);
      own.client.close();
      shown.client.close();
    });

    it('curl --ftp-ssl-control lists and fetches files: control under TLS, data beside it', async () => {
      const { name, text } = vsftpd.file;
      assert.match((await curlTls(front.target('ftp'), 'ftp://HOST/', ['--ftp-ssl-control'])).stdout, new RegExp(` ${name}\\r?\\n`, 'u'));
      assert.equal((await curlTls(front.target('ftp'), `ftp://HOST/${name}`, ['--ftp-ssl-control'])).stdout, text);
    });

    it('curl --ssl-reqd, which wants data under TLS too, is refused by vsftpd and fetches nothing', async () => {
      const { code, stdout } = await curlTls(front.target('ftp'), `ftp://HOST/${vsftpd.file.name}`, [], false);
      // CURLE_USE_SSL_FAILED.
      assert.deepEqual([code, stdout], [64, '']);
    });

    it('openssl s_client -starttls ftp: vsftpd lets anonymous in behind it', async () => {
      const client = new ByHand(front.target('ftp'), ['-starttls', 'ftp']);
      assert.match(await client.ask('USER anonymous\r\n', /^230 /mu), /^230 /u);
      await client.ask('QUIT\r\n', /^221 /mu);
      await client.over();
    });
  });
});
