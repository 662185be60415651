/** Dovecot and Postfix without TLS behind the proxy, and mail through them. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { ImapFlow } from 'imapflow';
import { createTransport } from 'nodemailer';
import { PlainClient, tempFolder, until } from '../support/index.js';
import { account, startDovecot, startPostfix } from '../support/servers/index.js';
import type { DovecotServer, PostfixServer } from '../support/servers/index.js';
import { ByHand, curlTls, Front, login, mbsync, swaks } from './proxy-support.js';

const { user, password, address } = account;
const plainLogin = Buffer.from(`\0${user}\0${password}`).toString('base64');

/** One protocol of the two servers. */
interface Row {
  readonly protocol: string;
  /** As s_client calls it, where it has another name there. */
  readonly starttls?: string;
  /** In plain text: what asks for capabilities (nothing where the greeting has them), the end of the answer, and the capabilities in it. */
  readonly list: string;
  readonly listed: RegExp;
  readonly words: (answer: string) => readonly string[];
  /** Text of the greeting. */
  readonly greeting: RegExp;
  /** Of the server's own capabilities: those that must not be seen before TLS. */
  readonly withheld: RegExp;
  readonly added: readonly string[];
  /** A login in plain text, and what comes of it. */
  readonly early: readonly [command: string, refusal: RegExp];
  /** Behind TLS: commands and what the server itself answers. */
  readonly behind: readonly (readonly [command: string, answer: RegExp])[];
}

const lines = (text: string, line: RegExp): string[] => [...text.matchAll(line)].map(([, word = '']) => word);
const mail = (protocol: string, hello: string, behind: Row['behind']): Row => ({
  protocol, starttls: hello === 'LHLO' ? 'lmtp' : 'smtp', list: `${hello} client.example\r\n`, listed: /^250 .*\r\n/mu, words: (answer) => lines(answer, /^250[- ](.*)\r$/gmu).slice(1),
  greeting: /^220 (.*)\r$/mu, withheld: /^AUTH/u, added: ['STARTTLS'], early: [`AUTH PLAIN ${plainLogin}\r\n`, /^530 5\.7\.0 /mu], behind,
});
/** In Postfix each answer is one of its own; that it has AUTH shows that it is in its first state again. */
const submitted: Row['behind'] = [['EHLO client.example\r\n', /^250-AUTH PLAIN LOGIN\r\n[^]*^250 .*\r\n/mu], [`AUTH PLAIN ${plainLogin}\r\n`, /^235 2\.7\.0 /mu], ['QUIT\r\n', /^221 /mu]];

const rows: readonly Row[] = [
  {
    protocol: 'imap', list: 'a CAPABILITY\r\n', listed: /^a OK/mu, words: (answer) => lines(answer, /^\* CAPABILITY (.*)\r$/gmu).join(' ').split(' '), greeting: /^\* OK \[CAPABILITY [^\]]*\] (.*)\r$/mu,
    withheld: /^AUTH=|^SASL-IR$/u, added: ['STARTTLS', 'LOGINDISABLED'], early: [`b LOGIN ${user} ${password}\r\n`, /^b NO \[PRIVACYREQUIRED\]/mu],
    behind: [['c SELECT INBOX\r\n', /^c BAD/mu], [`d LOGIN ${user} ${password}\r\n`, /^d OK .*Logged in/mu], ['e SELECT INBOX\r\n', /^e OK \[READ-WRITE\]/mu], ['f LOGOUT\r\n', /^f OK/mu]],
  },
  {
    protocol: 'pop3', list: 'CAPA\r\n', listed: /^\.\r\n/mu, words: (answer) => lines(answer, /^([A-Z].*)\r$/gmu), greeting: /^\+OK (.*)\r$/mu,
    withheld: /^(?:USER|SASL)/u, added: ['STLS'], early: [`USER ${user}\r\n`, /^-ERR \[AUTH\]/mu],
    behind: [['CAPA\r\n', /^SASL PLAIN LOGIN\r\n[^]*^\.\r\n/mu], [`USER ${user}\r\n`, /^\+OK/mu], [`PASS ${password}\r\n`, /^\+OK Logged in/mu], ['QUIT\r\n', /^\+OK Logging out/mu]],
  },
  {
    protocol: 'sieve', list: '', listed: /^OK .*\r\n/mu, words: (answer) => lines(answer, /^(".*)\r$/gmu), greeting: /^OK (.*)\r$/mu,
    withheld: /^"SASL"/u, added: ['"SASL" ""', '"STARTTLS"'], early: [`AUTHENTICATE "PLAIN" "${plainLogin}"\r\n`, /^NO \(ENCRYPT-NEEDED\)/mu],
    // RFC 5804 section 2.2: the server says its capabilities anew.
    behind: [['', /^"SASL" "PLAIN LOGIN"\r\n[^]*^OK /mu], [`AUTHENTICATE "PLAIN" "${plainLogin}"\r\n`, /^OK .*Logged in/mu], ['LISTSCRIPTS\r\n', /^OK/mu], ['LOGOUT\r\n', /^OK/mu]],
  },
  mail('lmtp', 'LHLO', [['LHLO client.example\r\n', /^250 .*\r\n/mu], ['MAIL FROM:<anna@example.net>\r\n', /^250 2\.1\.0/mu], [`RCPT TO:<${address}>\r\n`, /^250 2\.1\.5/mu], ['QUIT\r\n', /^221 /mu]]),
  mail('smtp', 'EHLO', submitted), mail('submission', 'EHLO', submitted),
];

describe('proxy: Dovecot and Postfix without TLS behind it', function () {
  this.timeout(60_000);
  let dovecot: DovecotServer;
  let postfix: PostfixServer;
  let front: Front;
  /** Of the servers themselves. */
  const ports = new Map<string, number>();

  before(async () => {
    dovecot = await startDovecot();
    postfix = await startPostfix({ lmtp: dovecot.lmtp, authSocket: dovecot.authSocket });
    for (const protocol of ['imap', 'pop3', 'sieve', 'lmtp'] as const) ports.set(protocol, dovecot[protocol]);
    for (const protocol of ['smtp', 'submission']) ports.set(protocol, postfix.port);
    front = await Front.start(Object.fromEntries(rows.map(({ protocol }) => [protocol, { protocol, backend: { connect: `127.0.0.1:${String(ports.get(protocol))}` } }])));
  });
  after(async () => {
    await front.stop();
    await postfix.stop();
    await dovecot.stop();
  });

  /** Greeting and capabilities in plain text; the connection stays open. */
  const shown = async ({ list, listed, words, greeting }: Row, port: number): Promise<{ client: PlainClient; words: readonly string[]; greeting: string | undefined }> => {
    const client = await PlainClient.connect(port);
    await client.hears(greeting);
    if (list !== '') client.say(list);
    await client.hears(listed);
    return { client, words: words(client.text), greeting: greeting.exec(client.text)?.[1] };
  };

  for (const row of rows) {
    const { protocol, starttls = protocol, withheld, added, early, behind } = row;

    it(`${protocol}: its own greeting and capabilities are shown before TLS, with STARTTLS and with nothing to log in by`, async () => {
      const own = await shown(row, ports.get(protocol)!);
      const seen = await shown(row, front.target(protocol).port);
      assert.equal(seen.greeting, own.greeting);
      assert(protocol === 'lmtp' || own.words.some((word) => withheld.test(word)), `there was nothing to withhold: ${own.words.join(' ')}`);
      assert.deepEqual([...seen.words].sort(), [...own.words.filter((word) => !withheld.test(word)), ...added].sort());
      await seen.client.ask(...early);
      own.client.close();
      seen.client.close();
    });

    it(`openssl s_client -starttls ${starttls}: ${protocol} goes on with the server itself, in its first state`, async () => {
      const client = new ByHand(front.target(protocol), ['-starttls', starttls]);
      for (const [command, answer] of behind) {
        const heard = await client.ask(command, answer);
        if (command === behind[0]?.[0] && protocol !== 'sieve') assert.doesNotMatch(heard, row.greeting, 'the greeting is not said again');
      }
      await client.over();
    });
  }

  /** Waits until Postfix has delivered the message with this id. */
  const delivered = async (id: string): Promise<void> => {
    await until(() => {
      const [, queue] = new RegExp(`: (\\w+): message-id=<${id}>`, 'u').exec(postfix.log()) ?? [];
      return queue !== undefined && new RegExp(`: ${queue}: to=.*status=sent`, 'u').test(postfix.log());
    }, { what: `the delivery of ${id}`, context: () => postfix.log().split('\n').slice(-15).join('\n') });
  };

  /** A message with what is awkward in mail: dots, long lines, empty lines, octets beyond ASCII; and some length. swaks ends its last line. */
  const awkward = (id: string): { message: string; body: string } => {
    const body = ['.', '..', '.leading', '', 'From here on', '  blanks at the end  ', 'Grüße, 你好', 'x'.repeat(990), '', ...randomBytes(150_000).toString('base64').match(/.{1,76}/gu)!].join('\n');
    return { message: `Message-Id: <${id}>\nSubject: ${id}\nFrom: anna@example.net\nTo: ${address}\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n${body}`, body: `${body}\n` };
  };

  /** Body of the one message with this id among those. */
  const bodyOf = (messages: readonly string[], id: string): string => {
    const found = messages.filter((message) => message.includes(`Message-Id: <${id}>`));
    assert.equal(found.length, 1);
    return found[0]!.slice(found[0]!.indexOf('\n\n') + 2);
  };

  it('a mail goes from swaks through the proxy into Postfix, and is fetched by mbsync through the proxy, unchanged', async () => {
    const { message, body } = awkward('swaks-smtp@example.net');
    const transcript = await swaks(front.target('smtp'), message);
    assert.match(transcript, /=== TLS started with cipher TLSv1\.3:[^]*<~ {2}250 2\.0\.0 Ok: queued[^]*~> QUIT\n<~ {2}221/u);
    await delivered('swaks-smtp@example.net');
    const messages = await mbsync(front.target('imap'));
    assert.equal(bodyOf(messages, 'swaks-smtp@example.net'), body);
    assert.match(messages.find((one) => one.includes('swaks-smtp'))!, /^Received: from .*\n\tby mail\.example\.org \(Postfix\) with ESMTP /mu, 'Postfix is not told of TLS');
    // How it ended is up to swaks, which does not wait for the end.
    await until(() => front.proxy.connections().some(({ service, protocol, octetsIn, code }) => service === 'smtp' && protocol === 'TLSv1.3' && octetsIn > Buffer.byteLength(body) && code === undefined), { what: 'the line of the log' });
  });

  it('a mail goes from swaks through the proxy into Dovecot by LMTP, and is fetched by curl by POP3, unchanged', async () => {
    const { message, body } = awkward('swaks-lmtp@example.net');
    assert.match(await swaks(front.target('lmtp'), message, ['--protocol', 'LMTP']), /=== TLS started[^]*~> LHLO [^]*<~ {2}250 2\.0\.0 .* Saved/u);
    const count = (await curlTls(front.target('pop3'), 'pop3://HOST/', login)).stdout.trim().split('\n').length;
    const { stdout } = await curlTls(front.target('pop3'), `pop3://HOST/${String(count)}`, login);
    assert.equal(bodyOf([stdout.replaceAll('\r\n', '\n')], 'swaks-lmtp@example.net'), body);
  });

  it('a mail goes from curl with a password into Postfix, and is fetched by curl by IMAP', async () => {
    const file = path.join(tempFolder(), 'mail');
    writeFileSync(file, 'Message-Id: <curl@example.net>\r\nSubject: curl\r\n\r\n.sent by curl\r\n');
    await curlTls(front.target('submission'), 'smtp://HOST/client.example', [...login, '--mail-from', 'anna@example.net', '--mail-rcpt', address, '--upload-file', file]);
    assert.match(postfix.log(), new RegExp(`sasl_method=PLAIN, sasl_username=${user}\\n`, 'u'));
    await delivered('curl@example.net');
    const { stdout } = await curlTls(front.target('imap'), 'imap://HOST/INBOX?SUBJECT%20curl', login);
    const [, number] = /^\* SEARCH (\d+)\r\n/u.exec(stdout) ?? [];
    assert.match((await curlTls(front.target('imap'), `imap://HOST/INBOX;MAILINDEX=${String(number)}`, login)).stdout, /^Return-Path: <anna@example\.net>\r\n[^]*Message-Id: <curl@example\.net>[^]*\r\n\r\n\.sent by curl\r\n$/u);
  });

  it('a wrong password is refused by the servers, behind TLS', async () => {
    for (const [service, url] of [['imap', 'imap://HOST/'], ['pop3', 'pop3://HOST/'], ['submission', 'smtp://HOST/']] as const) {
      const { code } = await curlTls(front.target(service), url, ['--user', `${user}:wrong`, ...(service === 'submission' ? ['--mail-from', address, '--mail-rcpt', address] : [])], false);
      // CURLE_LOGIN_DENIED.
      assert.equal(code, 67, service);
    }
  });

  it('nodemailer sends a mail with a password and an attachment, and imapflow reads it', async () => {
    const tls = { ca: readFileSync(front.pool.caFile), servername: 'localhost' };
    const attachment = randomBytes(100_000);
    const transport = createTransport({ host: '127.0.0.1', port: front.target('submission').port, requireTLS: true, tls, auth: { user, pass: password } });
    await transport.sendMail({ from: 'anna@example.net', to: address, messageId: '<nodemailer@example.net>', subject: 'nodemailer', text: 'See attachment.', attachments: [{ filename: 'octets', content: attachment }] });
    transport.close();
    await delivered('nodemailer@example.net');
    const client = new ImapFlow({ host: '127.0.0.1', port: front.target('imap').port, secure: false, doSTARTTLS: true, tls, servername: 'localhost', auth: { user, pass: password }, logger: false });
    await client.connect();
    assert.equal(client.secureConnection, true);
    const lock = await client.getMailboxLock('INBOX');
    const [uid] = await client.search({ header: { 'message-id': '<nodemailer@example.net>' } }, { uid: true }) || [];
    const { content } = await client.download(String(uid), '2', { uid: true });
    const chunks: Buffer[] = [];
    for await (const chunk of content as AsyncIterable<Buffer>) chunks.push(chunk);
    assert(Buffer.concat(chunks).equals(attachment));
    lock.release();
    await client.logout();
  });

  it('no password and no mail has reached the servers in plain text: what they had to answer for was behind TLS', async () => {
    const loginsOf = (): number => [...dovecot.log().matchAll(/-login: Info: Login: user=<joe>/gu)].length;
    const before = loginsOf();
    for (const row of rows) {
      const { client } = await shown(row, front.target(row.protocol).port);
      await client.ask(...row.early);
      client.close();
    }
    // Its line comes behind those of whatever came before.
    await curlTls(front.target('imap'), 'imap://HOST/', login);
    await until(() => loginsOf() > before, { what: 'the line of the login' });
    assert.equal(loginsOf(), before + 1);
  });
});
