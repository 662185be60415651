/** Hand-off `exec`: real programs on real sockets. */
import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { chmodSync, readFileSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { userInfo } from 'node:os';
import path from 'node:path';
import { PassThrough } from 'node:stream';
import { finished } from 'node:stream/promises';
import { sockets } from 'libtlspool/native';
import { TlsPoolError } from 'libtlspool/protocol';
import type { Endpoint, SessionInfo } from 'libtlspool/protocol';
import type { Account } from 'tlspool-common/config';
import { lookupAccount } from 'tlspool-common/config';
import { environmentOf } from 'tlspool-proxy/dist/handoff/environment.js';
import { execHandoff } from 'tlspool-proxy/dist/handoff/exec.js';
import type { ExecConfig, ExecSurroundings } from 'tlspool-proxy/dist/handoff/exec.js';
import { eachLine, lineChars, linesShown } from 'tlspool-proxy/dist/handoff/lines.js';
import { Places } from 'tlspool-proxy/dist/limits.js';
import { tempFolder } from '../support/cleanup.js';
import { countDescriptors } from '../support/native-fds.js';
import { issue, makeCa } from '../support/pki.js';
import { run } from '../support/program.js';
import { until, within } from '../support/wait.js';

const remote: Endpoint = { family: 'IPv4', address: '192.0.2.1', port: 4711 };
const local: Endpoint = { family: 'IPv6', address: '2001:db8::2', port: 143 };
const info: SessionInfo = {
  role: 'server', protocol: 'TLSv1.3', cipher: 'TLS_AES_128_GCM_SHA256', cipherName: 'TLS_AES_128_GCM_SHA256', group: 'X25519', alpn: 'imap', servername: 'mail.example',
  localid: 'mail', resumed: false, authorized: false, peerCertificates: [],
};

interface Started { readonly to: string; readonly done: Promise<void>; readonly peer: net.Socket; readonly lines: string[] }

interface Extras { readonly info?: SessionInfo; readonly user?: Account; readonly surroundings?: Partial<ExecSurroundings> }

/** Runs a program; `peer` is the other end of its socket, as the pool has it. The socket is closed as the proxy closes it. */
async function start(command: ExecConfig['command'], { info: session, user, surroundings }: Extras = {}): Promise<Started> {
  const [ours, theirs] = sockets.socketpair('stream');
  const lines: string[] = [];
  try {
    const handed = await execHandoff({ handoff: 'exec', command, user, max: 1 }, { plainfd: ours, remote, local, ...(session !== undefined && { info: session }) }, {
      signal: new AbortController().signal, enter: () => () => undefined, onOutput: (line) => { lines.push(line); }, ...surroundings,
    });
    assert.equal(handed.followed, true);
    return { ...handed, lines, peer: new net.Socket({ fd: theirs, allowHalfOpen: true }) };
  } catch (error) {
    sockets.close(theirs);
    throw error;
  } finally {
    sockets.close(ours);
  }
}

/** Everything that the program writes, after it was given this and the end of the stream. */
async function talk(started: Started, input = ''): Promise<string> {
  let said = '';
  started.peer.setEncoding('latin1').on('data', (text: string) => { said += text; });
  // A write of nothing to a program that has ended already would be an error all the same.
  if (input === '') started.peer.end();
  else started.peer.end(input, 'latin1');
  await within(Promise.all([finished(started.peer), started.done]), 'the program to end');
  return said;
}
const sh = (text: string): ExecConfig['command'] => ['/bin/sh', '-c', text];

async function refused(call: Promise<unknown>, code: string, why: RegExp): Promise<void> {
  const error: unknown = await call.then(() => undefined, (reason: unknown) => reason);
  assert(error instanceof TlsPoolError, `expected ${code}, got ${String(error)}`);
  assert.equal(error.code, code, error.message);
  assert.match(error.message, why);
}

function script(text: string, mode = 0o755): string {
  const file = path.join(tempFolder(), 'program');
  writeFileSync(file, text);
  chmodSync(file, mode);
  return file;
}

describe('exec: the program and its socket', () => {
  countDescriptors();

  it('standard input and output are the socket, and end with it', async () => {
    assert.equal(await talk(await start(['/bin/cat']), 'a line\r\n\0\xff'), 'a line\r\n\0\xff');
  });

  it('arguments arrive as they are', async () => {
    assert.equal(await talk(await start(['/usr/bin/printf', '%s|', 'a b', '$HOME', '-n', '', '"\''])), 'a b|$HOME|-n||"\'|');
  });

  it('LISTEN_PID is the process id of the program itself, LISTEN_FDS is 1, and descriptor 3 is the socket', async () => {
    const started = await start(sh('echo $LISTEN_FDS $LISTEN_FDNAMES $LISTEN_PID $$; cat <&3 >&3'));
    const said = await talk(started, 'through 3');
    const [, pid] = /\[(\d+)\]$/u.exec(started.to) ?? [];
    assert.equal(said, `1 connection ${String(pid)} ${String(pid)}\nthrough 3`);
  });

  it('there are descriptors 0 to 3 and no other of ours: 0, 1 and 3 one socket, 2 another', async () => {
    const list = ['/bin/ls', '-l', '/proc/self/fd'] as const;
    const targets = (said: string): Map<number, string> =>
      new Map([...said.matchAll(/ (\d+) -> (\S+)/gu)].map(([, fd, target]) => [Number(fd), target ?? ''] as const).filter(([, target]) => !target.startsWith('/proc/')));
    // What whoever started the tests left open above Node's reach, every child has.
    const inherited = targets((await run(list[0], list.slice(1))).stdout);
    const [ours, theirs] = sockets.socketpair('stream');
    const found = targets(await talk(await start(list)));
    for (const fd of [ours, theirs]) sockets.close(fd);
    assert.deepEqual([...found.keys()].filter((fd) => fd <= 3 || !inherited.has(fd)).sort(), [0, 1, 2, 3]);
    assert.match(found.get(0) ?? '', /^socket:/u);
    assert.equal(found.get(0), found.get(1));
    assert.equal(found.get(0), found.get(3));
    assert.notEqual(found.get(0), found.get(2));
  });

  it('the socket is blocking for the program, although it is not for us', async () => {
    const nonBlocking = (text: string): boolean[] => [...text.matchAll(/flags:\s*([0-7]+)/gu)].map(([, flags]) => (parseInt(flags ?? '', 8) & 0o4000) !== 0);
    const pair = sockets.socketpair('stream');
    assert.deepEqual(nonBlocking(readFileSync(`/proc/self/fdinfo/${String(pair[0])}`, 'utf8')), [true]);
    for (const fd of pair) sockets.close(fd);
    assert.deepEqual(nonBlocking(await talk(await start(['/bin/cat', '/proc/self/fdinfo/0', '/proc/self/fdinfo/1', '/proc/self/fdinfo/3']))), [false, false, false]);
  });

  it('the peer sees the end when the program ends, and the program sees the end of the peer', async () => {
    const ends = await start(['/bin/true']);
    ends.peer.resume();
    await within(finished(ends.peer, { writable: false }), 'the end of the stream');
    ends.peer.destroy();
    await ends.done;
    const waits = await start(['/bin/cat']);
    waits.peer.destroy();
    await within(waits.done, 'the program to end');
  });

  it('signals are as a new program expects them: none blocked, none ignored', async () => {
    const said = await talk(await start(['/bin/grep', '-E', '^Sig(Blk|Ign):', '/proc/self/status']));
    assert.match(said, /SigBlk:\s0{16}\nSigIgn:\s0{16}\n/u);
  });

  it('the folder is / and the session is its own', async () => {
    const said = await talk(await start(sh('pwd; cut -d" " -f1,6 /proc/$$/stat')));
    const [, folder, pid, session] = /^(.*)\n(\d+) (\d+)\n$/u.exec(said) ?? [];
    assert.equal(folder, '/');
    assert.equal(session, pid);
  });

  it('fifty at once get each its own connection', async () => {
    const all = await Promise.all(Array.from({ length: 50 }, () => start(['/bin/cat'])));
    const said = await Promise.all(all.map((started, index) => talk(started, `number ${String(index)}`)));
    assert.deepEqual(said, all.map((_, index) => `number ${String(index)}`));
  });
});

describe('exec: what the program is told', () => {
  countDescriptors();
  let verified: SessionInfo;

  before(async () => {
    const folder = tempFolder();
    const { certFile } = await issue(await makeCa(path.join(folder, 'ca'), 'The CA'), path.join(folder, 'peer'), { commonName: 'alice', sans: ['email:alice@example.org', 'DNS:a.example'], usage: 'clientAuth' });
    verified = { ...info, authorized: true, peerCertificates: [new X509Certificate(readFileSync(certFile)).raw] };
  });

  const parsed = (text: string): Record<string, string> => Object.fromEntries(text.trimEnd().split('\n').map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]));
  const basic = { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', LANG: 'C.UTF-8', LISTEN_FDS: '1', LISTEN_FDNAMES: 'connection' };
  const ends = { REMOTE_ADDR: '192.0.2.1', REMOTE_PORT: '4711', LOCAL_ADDR: '2001:db8::2', LOCAL_PORT: '143' };
  const tls = { TLS_PROTOCOL: 'TLSv1.3', TLS_CIPHER: 'TLS_AES_128_GCM_SHA256', TLS_GROUP: 'X25519', TLS_SNI: 'mail.example', TLS_ALPN: 'imap', TLS_LOCALID: 'mail', TLS_RESUMED: 'no' };

  it('the whole environment, of the proxy\'s own nothing', async () => {
    process.env['A_SECRET_OF_THE_PROXY'] = 'x';
    try {
      // A /bin/sh that is bash counts itself.
      const { LISTEN_PID, SHLVL: _, ...rest } = parsed(await talk(await start(['/usr/bin/env'], { info })));
      assert.match(LISTEN_PID ?? '', /^\d+$/u);
      assert.deepEqual(rest, { ...basic, ...ends, ...tls });
    } finally {
      delete process.env['A_SECRET_OF_THE_PROXY'];
    }
  });

  it('without TLS no variable speaks of it', async () => {
    const { LISTEN_PID: _, SHLVL: __, ...rest } = parsed(await talk(await start(['/usr/bin/env'])));
    assert.deepEqual(rest, { ...basic, ...ends });
  });

  it('the peer\'s certificate is told when it was verified', () => {
    const der = verified.peerCertificates[0];
    assert(der !== undefined);
    assert.deepEqual(environmentOf({ info: verified, remote, local }), {
      ...basic, ...ends, ...tls, TLS_PEER_SUBJECT: 'CN=alice', TLS_PEER_ISSUER: 'CN=The CA', TLS_PEER_SAN: 'email:alice@example.org, DNS:a.example',
      TLS_PEER_FINGERPRINT: new X509Certificate(der).fingerprint256.replaceAll(':', '').toLowerCase(),
    });
  });

  it('nothing of a certificate that was not verified is told', () => {
    assert.deepEqual(environmentOf({ info: { ...verified, authorized: false, authorizationError: 'CERT_HAS_EXPIRED' }, remote, local }), { ...basic, ...ends, ...tls });
  });

  it('a verified session without a certificate, or with one that cannot be read, tells no peer', () => {
    for (const peerCertificates of [[], [Buffer.from('no certificate')]]) {
      assert.deepEqual(environmentOf({ info: { ...verified, peerCertificates }, remote, local }), { ...basic, ...ends, ...tls });
    }
  });

  it('what a peer chose is printable ASCII; a value of 1024 characters is told, one of 1025 is left out', () => {
    const sni = (servername: string): string | undefined => environmentOf({ info: { ...info, servername }, remote, local })['TLS_SNI'];
    assert.equal(sni('a\nTLS_PEER_SUBJECT=CN=root\0\u001b[2J\u202eé😀'), 'a\\u{a}TLS_PEER_SUBJECT=CN=root\\u{0}\\u{1b}[2J\\u{202e}\\u{e9}\\u{1f600}');
    assert.equal(sni('x'.repeat(1024)), 'x'.repeat(1024));
    assert.equal(sni('x'.repeat(1025)), undefined);
    assert.equal(sni(''), undefined);
  });

  it('a UNIX client has no port, and an unnamed one no address; ends that are not known are not told', () => {
    const unix = (address: string) => environmentOf({ remote: { family: 'unix', address, port: 0 }, local: undefined });
    assert.deepEqual(unix('/run/client'), { ...basic, REMOTE_ADDR: '/run/client' });
    assert.deepEqual(unix(''), basic);
    assert.deepEqual(environmentOf({ remote: undefined, local: undefined }), basic);
  });
});

describe('exec: what goes wrong', () => {
  countDescriptors();

  const cases: readonly (readonly [what: string, program: () => string, why: RegExp])[] = [
    ['a program that does not exist', () => '/nonexistent/program', /\/nonexistent\/program does not exist/u],
    ['a path that is not absolute', () => 'cat', /cat has no absolute path/u],
    ['a folder', () => '/usr/bin', /is no file/u],
    ['a file that is not executable', () => script('#!/bin/sh\n', 0o644), /not executable; set its mode/u],
    ['a file without #!, which a shell would run as its own script', () => script('echo pwned\n'), /neither a binary nor a script/u],
    ['an empty file', () => script(''), /neither a binary nor a script/u],
    ['a script whose interpreter is missing', () => script('#!/nonexistent/interpreter\n'), /needs the interpreter \/nonexistent\/interpreter/u],
    ['a script whose interpreter has no absolute path', () => script('#!sh\n'), /neither a binary nor a script/u],
    ['a path with a NUL in it', () => '/bin/cat\0x', /could not be started/u],
  ];
  for (const [what, program, why] of cases) {
    it(`refused, the socket left usable and the place given back: ${what}`, async () => {
      const places = new Places('the program has', () => 1);
      const [ours, theirs] = sockets.socketpair('stream');
      const attempt = execHandoff({ handoff: 'exec', command: [program()], user: undefined, max: 1 }, { plainfd: ours, remote, local }, { signal: new AbortController().signal, enter: () => places.take(''), onOutput: () => undefined });
      await refused(attempt, 'BACKEND_FAILED', why);
      assert.equal(places.of(''), 0);
      sockets.send(ours, Buffer.from('421 later\r\n'));
      assert.equal(sockets.receive(theirs, 100, 0)?.data.toString(), '421 later\r\n');
      for (const fd of [ours, theirs]) sockets.close(fd);
    });
  }

  it('the scripts that the refused ones were made of run', async () => {
    for (const head of ['#!/bin/sh', '#! /bin/sh -e', '#!/usr/bin/env sh']) assert.equal(await talk(await start([script(`${head}\necho "$1"\n`), 'x y'])), 'x y\n');
  });

  it('the last free place is taken, one more is refused, and a place is free again when its program has ended', async () => {
    const places = new Places('the program has', () => 2);
    const surroundings = { enter: () => places.take('') };
    const running = [await start(['/bin/cat'], { surroundings }), await start(['/bin/cat'], { surroundings })] as const;
    await refused(start(['/bin/cat'], { surroundings }), 'LIMIT_CLIENTS', /2/u);
    await talk(running[0]);
    const third = await start(['/bin/cat'], { surroundings });
    assert.equal(places.of(''), 2);
    await Promise.all([talk(running[1]), talk(third)]);
    assert.equal(places.of(''), 0);
  });

  it('how a program failed is told, success is not', async () => {
    const told = async (text: string): Promise<string[]> => {
      const started = await start(sh(text));
      await talk(started);
      return started.lines.map((line) => line.replace(/^\[\d+\] /u, ''));
    };
    assert.deepEqual(await told('exit 0'), []);
    assert.deepEqual(await told('exit 75'), ['/bin/sh ended with code 75']);
    assert.deepEqual(await told('kill -9 $$'), ['/bin/sh ended with SIGKILL']);
  });

  it('standard error comes line by line with the process id, the last line also without its end', async () => {
    const started = await start(sh('printf "one\\r\\n\\ntwo \\033[31m\\303\\251\\nlast" >&2'));
    await talk(started);
    await until(() => started.lines.length === 4, { what: 'four lines', context: () => started.lines.join('\n') });
    const [, pid] = /\[(\d+)\]$/u.exec(started.to) ?? [];
    assert.deepEqual(started.lines, ['one', '', 'two \\u{1b}[31m\\u{e9}', 'last'].map((line) => `[${String(pid)}] ${line}`));
  });
});

function accountOf(name: string): Account {
  const account = lookupAccount(name);
  assert(account !== undefined, `this host has no user ${name}`);
  return account;
}

describe('exec: users', () => {
  countDescriptors();
  const isRoot = process.getuid?.() === 0;

  it('our own user needs no privilege', async () => {
    const { username, uid } = userInfo();
    assert.equal(await talk(await start(['/usr/bin/id', '-u'], { user: accountOf(username) })), `${String(uid)}\n`);
  });

  it('another user: the program has its ids and no supplementary groups; without the privilege it is refused', async () => {
    const other = accountOf(isRoot ? 'nobody' : 'root');
    if (!isRoot) {
      await refused(start(['/bin/cat'], { user: other }), 'BACKEND_FAILED', /may not change to the user root/u);
      return;
    }
    const { uid, gid } = other;
    const said = await talk(await start(['/bin/grep', '-E', '^(Uid|Gid|Groups):', '/proc/self/status'], { user: other }));
    assert.equal(said.replaceAll(/[\t ]+/gu, ' ').replaceAll(' \n', '\n'), `Uid:${` ${String(uid)}`.repeat(4)}\nGid:${` ${String(gid)}`.repeat(4)}\nGroups:\n`);
  });

  it('a program that this user may not execute is refused before anything runs', async () => {
    const file = script('#!/bin/sh\necho ran\n', 0o700);
    if (isRoot) await refused(start([file], { user: accountOf('nobody') }), 'BACKEND_FAILED', /missing or not executable for the user nobody/u);
    assert.equal(await talk(await start([file])), 'ran\n');
  });
});

describe('exec: lines of a program', () => {
  const linesOf = async (...chunks: readonly (string | Buffer)[]): Promise<string[]> => {
    const lines: string[] = [];
    const stream = new PassThrough();
    eachLine(stream, (line) => { lines.push(line); });
    for (const chunk of chunks) stream.write(chunk);
    stream.end();
    await finished(stream);
    return lines;
  };

  it('a line of the greatest length is shown whole, one more character is cut and seen to be', async () => {
    assert.deepEqual(await linesOf(`${'x'.repeat(lineChars)}\n`), ['x'.repeat(lineChars)]);
    assert.deepEqual(await linesOf(`${'x'.repeat(lineChars + 1)}\n`), [`${'x'.repeat(lineChars)}…`]);
    assert.deepEqual(await linesOf('x'.repeat(lineChars), 'y'.repeat(5_000_000), 'z\nnext\n'), [`${'x'.repeat(lineChars)}…`, 'next']);
  });

  it('characters and lines may come in pieces', async () => {
    assert.deepEqual(await linesOf(Buffer.from([0x61, 0xc3]), Buffer.from([0xa9, 0x0a]), 'b', 'c\nd', '\n'), ['a\\u{e9}', 'bc', 'd']);
  });

  it('the last line that is shown is shown; the one after it says that there are more, once', async () => {
    assert.equal((await linesOf('x\n'.repeat(linesShown))).length, linesShown);
    const lines = await linesOf('x\n'.repeat(linesShown + 5000));
    assert.equal(lines.length, linesShown + 1);
    assert.match(lines.at(-1) ?? '', /more than 1000 lines/u);
  });
});
