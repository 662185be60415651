/** The mailbox of `npm start`: IMAP and SMTP with STARTTLS in front of servers without a line about TLS, used by programs that others wrote. */
import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { event, needProgram, Program, run, sClientArgs, tempFolder, within } from '../support/index.js';
import type { RunResult, Target } from '../support/index.js';
import { Start } from '../support/start.js';

describe('npm start: the mailbox', function () {
  this.timeout(60_000);
  let start: Start;
  let imap: Target;
  let imaps: Target;
  let smtp: Target;
  const open: { destroy(): void }[] = [];

  before(async () => {
    start = new Start();
    [imap, imaps, smtp] = [await start.mail('imap'), await start.mail('imaps'), await start.mail('smtp')];
  });
  afterEach(() => { for (const one of open.splice(0)) one.destroy(); });
  after(async () => { assert.equal(await start.stop(), 0); });

  const curl = (target: Target, url: string, args: readonly string[] = [], check = true): Promise<RunResult> => run(needProgram('curl', 'curl'), [
    '--silent', '--show-error', '--max-time', '20', '--cacert', target.caFile, '--resolve', `localhost:${target.port}:127.0.0.1`, '--ssl-reqd',
    ...args, url.replace('HOST', `localhost:${target.port}`),
  ], { deadlineMs: 30_000, check });
  const login = ['--user', 'demo:demo'];
  const fetch = async (search: string): Promise<string> => {
    const found = await curl(imap, `imap://HOST/INBOX?${search}`, login);
    const [, number] = /^\* SEARCH (\d+)/u.exec(found.stdout) ?? [];
    return (await curl(imap, `imap://HOST/INBOX;MAILINDEX=${String(number)}`, login)).stdout;
  };
  const send = (target: Target, subject: string): Promise<RunResult> => {
    const file = path.join(tempFolder(), 'mail');
    writeFileSync(file, `Subject: ${subject}\r\n\r\nA line.\r\n.a dot\r\n`);
    return curl(target, 'smtp://HOST', ['--mail-from', 'a@example.org', '--mail-rcpt', 'b@localhost', '--upload-file', file]);
  };
  /** IMAP by hand. */
  const byHand = (): Program => {
    const program = new Program(needProgram('openssl', 'openssl'), sClientArgs(imap, ['-starttls', 'imap', '-quiet']));
    open.push({ destroy: () => program.kill() });
    return program;
  };
  const plain = async ({ port }: Target, greeting: RegExp): Promise<{ say: (text: string, answer: RegExp) => Promise<void>; socket: net.Socket }> => {
    const socket = net.connect(port, '127.0.0.1').setEncoding('latin1');
    open.push(socket);
    let heard = '';
    let look = (): void => undefined;
    socket.on('data', (text: string) => { heard += text; look(); });
    const hear = (pattern: RegExp): Promise<void> => within(new Promise<void>((resolve) => {
      look = () => { if (pattern.test(heard)) { heard = ''; resolve(); } };
      look();
    }), `an answer like ${String(pattern)}`, 10_000, () => heard);
    await hear(greeting);
    return { socket, say: (text, answer) => { socket.write(text); return hear(answer); } };
  };

  it('curl reads the first mail by STARTTLS, and over TLS at once', async () => {
    assert.match((await curl(imap, 'imap://HOST/INBOX;MAILINDEX=1', login)).stdout, /^From: [^]*\r\n\r\nYou read this over TLS/u);
    assert.match((await curl(imaps, 'imaps://HOST/INBOX;MAILINDEX=1', login)).stdout, /^From: [^]*\r\n\r\nYou read this over TLS/u);
    assert.match((await curl(imap, 'imap://HOST/', login)).stdout, /^\* LIST \(\) "\/" INBOX/u);
  });

  it('a wrong password is refused', async () => {
    assert.equal((await curl(imap, 'imap://HOST/', ['--user', 'demo:wrong'], false)).code, 67);
  });

  it('curl sends a mail by STARTTLS, which is then in the box', async () => {
    await send(smtp, 'sent by curl');
    assert.match(await fetch('SUBJECT%20%22sent%20by%20curl%22'), /^Return-Path: <a@example\.org>\r\nReceived: [^]*Subject: sent by curl\r\n\r\nA line\.\r\n\.a dot\r\n$/u);
  });

  it('swaks sends a mail by STARTTLS, which is then in the box', async () => {
    const { stdout } = await run(needProgram('swaks', 'swaks'), [
      '--server', '127.0.0.1', '--port', String(smtp.port), '--tls', '--tls-verify', '--tls-ca-path', smtp.caFile, '--tls-sni', 'localhost',
      '--from', 'swaks@example.org', '--to', 'b@localhost', '--header', 'Subject: sent by swaks',
    ]);
    assert.match(stdout, /=== TLS started with cipher TLSv1\.3:[^]*<~ {2}250 [^]*~> QUIT/u);
    assert.match(await fetch('FROM%20swaks'), /Subject: sent by swaks/u);
  });

  it('by hand: literals, FETCH with a section, STORE, EXPUNGE, APPEND', async () => {
    const client = byHand();
    const say = async (text: string, answer: RegExp): Promise<void> => {
      client.write(text);
      await client.output(answer, 'stdout');
    };
    await say('a LOGIN {4}\r\n', /^\+ /mu);
    await say('demo {4+}\r\ndemo\r\n', /^a OK /mu);
    await say('b SELECT inbox\r\n', /^\* \d+ EXISTS\r\n[^]*^b OK \[READ-WRITE\]/mu);
    await say('c FETCH 1 (UID BODY.PEEK[HEADER.FIELDS (Subject)] BODY.PEEK[TEXT]<4.4>)\r\n',
      /^\* 1 FETCH \(UID 1 BODY\[HEADER\.FIELDS \(SUBJECT\)\] \{20\}\r\nSubject: Welcome\r\n\r\n BODY\[TEXT\]<4> \{4\}\r\nread\)\r\nc OK /mu);
    await say('d APPEND INBOX (\\Flagged) "01-Jan-2026 00:00:00 +0100" {19+}\r\nSubject: x\r\n\r\nbye\r\n\r\n', /^\* \d+ EXISTS\r\nd OK \[APPENDUID \d+ \d+\]/mu);
    await say('e FETCH * (FLAGS INTERNALDATE RFC822.SIZE ENVELOPE BODYSTRUCTURE)\r\n',
      /^\* \d+ FETCH \(FLAGS \(\\Flagged\) INTERNALDATE "31-Dec-2025 23:00:00 \+0000" RFC822\.SIZE 19 ENVELOPE \(NIL "x" NIL NIL NIL NIL NIL NIL NIL NIL\) BODYSTRUCTURE \("text" "plain" NIL NIL NIL "7bit" 5 1 NIL NIL NIL NIL\)\)\r\ne OK /mu);
    await say('f STORE * +FLAGS (\\Deleted)\r\n', /^\* \d+ FETCH \(FLAGS \(\\Flagged \\Deleted\)\)\r\nf OK /mu);
    await say('g EXPUNGE\r\n', /^\* \d+ EXPUNGE\r\ng OK /mu);
    await say('h FETCH 1 (BODY[\r\n', /^h BAD /mu);
    await say('i XYZ\r\n', /^i BAD /mu);
    await say('j LOGOUT\r\n', /^\* BYE .*\r\nj OK /mu);
    client.end();
    await client.ended;
  });

  it('a client that waits with IDLE is told of a mail as it comes', async () => {
    const client = byHand();
    client.write('a LOGIN demo demo\r\nb SELECT INBOX\r\nc IDLE\r\n');
    await client.output(/^\+ idling\r\n/mu, 'stdout');
    const [, before] = await client.output(/^\* (\d+) EXISTS/mu, 'stdout');
    await send(smtp, 'news');
    await client.output(new RegExp(`^\\+ idling[^]*^\\* ${Number(before) + 1} EXISTS`, 'mu'), 'stdout');
    client.write('DONE\r\n');
    await client.output(/^c OK /mu, 'stdout');
  });

  it('mbsync copies the box into a Maildir, and a mail from there into the box', async () => {
    const folder = tempFolder();
    const config = path.join(folder, 'rc');
    writeFileSync(config, `IMAPAccount demo\nHost localhost\nPort ${imap.port}\nUser demo\nPass demo\nSSLType STARTTLS\nCertificateFile ${imap.caFile}\nSystemCertificates no\n
IMAPStore far\nAccount demo\n\nMaildirStore near\nPath ${folder}/\nInbox ${folder}/INBOX\n\nChannel c\nFar :far:\nNear :near:\nPatterns INBOX\nCreate Near\nExpunge Both\nSyncState *\nSync All\n`);
    const sync = (): Promise<RunResult> => run(needProgram('mbsync', 'isync'), ['-c', config, '-a'], { deadlineMs: 30_000 });
    await sync();
    const mails = ['cur', 'new'].flatMap((name) => readdirSync(path.join(folder, 'INBOX', name)).map((file) => readFileSync(path.join(folder, 'INBOX', name, file), 'utf8')));
    assert.ok(mails.some((text) => /^Subject: Welcome$/mu.test(text)));
    mkdirSync(path.join(folder, 'INBOX/new'), { recursive: true });
    writeFileSync(path.join(folder, 'INBOX/new/1.1.here'), 'Subject: by way of mbsync\n\nUp it goes.\n');
    await sync();
    assert.match(await fetch('SUBJECT%20mbsync'), /Up it goes\.\r\n$/u);
  });

  it('nothing that needs TLS is done without: no login, no mail', async () => {
    const mailbox = await plain(imap, /^\* OK \[CAPABILITY [^\]]*STARTTLS LOGINDISABLED[^\]]*\]/u);
    await mailbox.say('a LOGIN demo demo\r\n', /^a NO \[PRIVACYREQUIRED\]/u);
    await mailbox.say('b LOGOUT\r\n', /^b OK /mu);
    const server = await plain(smtp, /^220 /u);
    await server.say('EHLO me\r\n', /^250[- ]STARTTLS\r\n/mu);
    await server.say('MAIL FROM:<a@example.org>\r\n', /^530 5\.7\.0 /u);
    await server.say('QUIT\r\n', /^221 /u);
  });

  it('commands behind STARTTLS end the connection, and the live line says so', async () => {
    const { say, socket } = await plain(imap, /^\* OK /u);
    const closed = event(socket, 'close');
    await say('a STARTTLS\r\nb LOGIN demo demo\r\n', /^\* BYE /u);
    await closed;
    await start.program.output(/^\d\d:\d\d:\d\d {2}127\.0\.0\.1:\d+ +imap {3}EARLY_OCTETS {2}/mu, 'stdout');
  });

  it('a client that leaves before TLS gives a line, too', async () => {
    const { socket } = await plain(smtp, /^220 /u);
    const { localPort } = socket;
    socket.destroy();
    await start.program.output(new RegExp(`^\\d\\d:\\d\\d:\\d\\d {2}127\\.0\\.0\\.1:${String(localPort)} +smtp {3}left before TLS$`, 'mu'), 'stdout');
  });

  it('each connection gives one line with its service', async () => {
    for (const [service, target, scheme] of [['imap ', imap, 'imap'], ['imaps', imaps, 'imaps']] as const) {
      const { stdout } = await curl(target, `${scheme}://HOST/`, [...login, '--write-out', '%{local_port}']);
      const [, port] = /(\d+)$/u.exec(stdout) ?? [];
      await start.program.output(new RegExp(`^\\d\\d:\\d\\d:\\d\\d {2}127\\.0\\.0\\.1:${String(port)} +${service} {2}TLSv1\\.3 {2}TLS_\\w+ {2}\\S+ {2}sni=localhost {2}alpn=- {2}in=\\d+ {2}out=\\d+ {2}(closed|TRUNCATED)\\n`, 'mu'), 'stdout');
    }
  });
});
