/** Dovecot and Postfix behind the proxy with a PROXY header: they know who the client is, and whether it has TLS. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { needProgram, run, tempFolder, until } from '../support/index.js';
import { account, startDovecot, startPostfix } from '../support/servers/index.js';
import type { DovecotServer, PostfixServer, TestServer } from '../support/servers/index.js';
import { ByHand, curlTls, Front, login } from './proxy-support.js';
import type { FrontService } from './proxy-support.js';

/** Where clients come from; the proxy comes from 127.0.0.1. */
const client = '127.0.0.9';
const from = ['--interface', client] as const;

describe('proxy: PROXY headers to Dovecot and Postfix', function () {
  this.timeout(60_000);
  let dovecot: DovecotServer;
  let postfix: PostfixServer;
  let front: Front;

  before(async () => {
    dovecot = await startDovecot({ proxyProtocol: true, protectedOnly: true });
    postfix = await startPostfix({ proxyProtocol: true });
    const service = (protocol: string, port: number, proxyProtocol: number): FrontService => ({ protocol, backend: { connect: `127.0.0.1:${String(port)}`, proxyProtocol } });
    const services: (readonly [string, FrontService])[] = [1, 2].flatMap((version) => [
      [`imap-v${String(version)}`, service('imap', dovecot.imap, version)], [`pop3-v${String(version)}`, service('pop3', dovecot.pop3, version)], [`sieve-v${String(version)}`, service('sieve', dovecot.sieve, version)],
      [`smtp-v${String(version)}`, service('smtp', postfix.port, version)],
    ]);
    front = await Front.start({ ...Object.fromEntries(services), 'imap-optional': { ...service('imap', dovecot.imap, 2), tls: 'optional' } });
  });
  after(async () => {
    await front.stop();
    await postfix.stop();
    await dovecot.stop();
  });

  const logged = (server: TestServer, pattern: RegExp): Promise<string> => until(() => pattern.exec(server.log())?.[0], {
    what: `the log to say ${String(pattern)}`, context: () => server.log().split('\n').slice(-15).join('\n'),
  });

  for (const version of [1, 2]) {
    for (const protocol of ['imap', 'pop3']) {
      it(`${protocol}, version ${String(version)}: Dovecot logs the client's address, ${version === 2 ? 'and takes passwords since it is told of TLS' : 'and takes no passwords since version 1 cannot tell of TLS'}`, async () => {
        const { code } = await curlTls(front.target(`${protocol}-v${String(version)}`), `${protocol}://HOST/`, [...login, ...from], false);
        // CURLE_LOGIN_DENIED, and CURLE_OK.
        assert.equal(code, version === 1 ? 67 : 0);
        const addresses = `rip=${client}, lip=127\\.0\\.0\\.1`;
        await logged(dovecot, new RegExp(version === 1 ? `${protocol}-login: Info: .*user=<>, ${addresses}, session=` : `${protocol}-login: Info: Login: user=<${account.user}>, method=\\w+, ${addresses}, mpid=\\d+, secured, session=`, 'u'));
      });
    }

    it(`sieve, version ${String(version)}: the connection is served, and Dovecot logs the client's address`, async () => {
      const byHand = new ByHand(front.target(`sieve-v${String(version)}`), ['-starttls', 'sieve', '-bind', client]);
      await byHand.hear(/^OK /mu);
      await byHand.ask('LOGOUT\r\n', /^OK/mu);
      await byHand.over();
      await logged(dovecot, new RegExp(`managesieve-login: Info: .*rip=${client}`, 'u'));
    });

    it(`smtp, version ${String(version)}: Postfix logs the client's address, and writes it into the mail`, async () => {
      const before = postfix.log().length;
      const service = `smtp-v${String(version)}`;
      const file = path.join(tempFolder(), 'mail');
      writeFileSync(file, `Subject: ${service}\r\n\r\nhello\r\n`);
      await curlTls(front.target(service), 'smtp://HOST/client.example', ['--mail-from', 'anna@example.net', '--mail-rcpt', account.address, '--upload-file', file, ...from]);
      await logged({ ...postfix, log: () => postfix.log().slice(before) }, new RegExp(`postfix/smtpd\\[\\d+\\]: \\w+: client=unknown\\[${client}\\]`, 'u'));
      const mail = await until(() => postfix.newMail().find((one) => one.includes(`Subject: ${service}\n`)), { what: 'the mail to be delivered' });
      assert.match(mail, new RegExp(`^Received: from client\\.example \\(unknown \\[${client}\\]\\)$`, 'mu'));
    });
  }

  it('where TLS is optional, Dovecot takes the password of a client that has asked for it, and not that of one that has not', async () => {
    const target = front.target('imap-optional');
    await curlTls(target, 'imap://HOST/', [...login, ...from]);
    // curl without a word about TLS.
    const { code, stderr } = await run(needProgram('curl', 'curl'), ['--verbose', '--silent', '--max-time', '20', '--noproxy', '*', ...login, ...from, `imap://127.0.0.1:${String(target.port)}/`], { check: false });
    assert.equal(code, 67, stderr);
    assert.match(stderr, /^< A00\d NO \[PRIVACYREQUIRED\] Plaintext authentication disallowed/mu);
    await logged(dovecot, new RegExp(`imap-login: Info: Disconnected: .*auth failed.*user=<${account.user}>, rip=${client}, lip=127\\.0\\.0\\.1, session=`, 'u'));
  });
});
