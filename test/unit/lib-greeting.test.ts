import assert from 'node:assert/strict';
import { once } from 'node:events';
import net from 'node:net';
import fc from 'fast-check';
import { withoutGreeting } from 'libtlspool';
import { sockets } from 'libtlspool/native';
import { TlsPoolError } from 'libtlspool/protocol';
import { preambleNames } from 'libtlspool/preamble';

/** Writes the pieces to a socket behind withoutGreeting(), and gives what its client reads. */
async function through(protocol: string, pieces: readonly (string | Buffer)[], how: 'at once' | 'corked' | 'one by one' = 'at once'): Promise<string> {
  const [ours, theirs] = sockets.socketpair('stream');
  const server = withoutGreeting(new net.Socket({ fd: ours }), protocol);
  const client = new net.Socket({ fd: theirs });
  let text = '';
  client.setEncoding('latin1').on('data', (chunk: string) => { text += chunk; });
  const ended = once(client, 'end');
  if (how === 'corked') server.cork();
  for (const piece of pieces) {
    if (how === 'one by one') await new Promise<void>((resolve, reject) => { server.write(piece, (error) => { if (error) reject(error); else resolve(); }); });
    else server.write(piece);
  }
  if (how === 'corked') server.uncork();
  server.end();
  await ended;
  client.destroy();
  server.destroy();
  return text;
}

const greetings: readonly (readonly [protocol: string, greeting: string])[] = [
  ['smtp', '220 mail.example ESMTP ready\r\n'], ['smtp', '220\r\n'],
  ['submission', '220-mail.example ESMTP\r\n220-is not for advertising\r\n220 ready\r\n'], ['lmtp', '220 mail.example LMTP\r\n'],
  ['imap', '* OK [CAPABILITY IMAP4rev2 AUTH=PLAIN] ready\r\n'], ['imap', '* ok\r\n'],
  ['pop3', '+OK ready\r\n'], ['pop3', '+OK\r\n'], ['nntp', '200 news.example ready\r\n'], ['nntp', '201 no posting\r\n'],
  ['ftp', '220 ready\r\n'], ['ftp', '220-Welcome\r\n 220 is no end\r\n221 neither\r\n\r\n220-nor this\r\n220 now\r\n'],
];

describe('libtlspool: withoutGreeting', () => {
  for (const [protocol, greeting] of greetings) {
    const behind = `${protocol === 'imap' ? '* ' : ''}250 answer\r\n`;
    it(`${protocol}: ${JSON.stringify(greeting)} is swallowed, and what is behind it is not`, async () => {
      for (const how of ['at once', 'corked', 'one by one'] as const) {
        assert.equal(await through(protocol, [greeting, behind], how), behind, how);
        assert.equal(await through(protocol, [greeting + behind, behind], how), behind + behind, how);
      }
    });
    it(`${protocol}: ${JSON.stringify(greeting)} is swallowed in two pieces, wherever it is cut, and octet by octet`, async () => {
      const whole = greeting + behind;
      for (let at = 1; at < whole.length; at++) assert.equal(await through(protocol, [whole.slice(0, at), Buffer.from(whole.slice(at))]), behind, String(at));
      assert.equal(await through(protocol, [...whole]), behind);
    });
    it(`${protocol}: a second greeting is not swallowed`, async () => {
      assert.equal(await through(protocol, [greeting, greeting]), greeting);
    });
  }

  const others: readonly (readonly [protocol: string, first: string])[] = [
    ['smtp', '554 no service\r\n'], ['smtp', '421-busy\r\n421 later\r\n'], ['smtp', '2200 what\r\n'], ['lmtp', '\r\n'], ['imap', '* BYE full\r\n'], ['imap', '* PREAUTH come in\r\n'],
    ['imap', '* OKAY\r\n'], ['pop3', '-ERR busy\r\n'], ['pop3', '+OKAY\r\n'], ['nntp', '400 no\r\n'], ['nntp', '205 x\r\n'], ['ftp', '120 wait\r\n'], ['ftp', '421 no\r\n'],
  ];
  for (const [protocol, first] of others) {
    it(`${protocol}: ${JSON.stringify(first)} is no greeting and reaches the client, in whatever pieces`, async () => {
      for (let at = 0; at < first.length; at++) assert.equal(await through(protocol, [first.slice(0, at), `${first.slice(at)}more`].filter((piece) => piece !== '')), `${first}more`);
      assert.equal(await through(protocol, [...first]), first);
    });
  }

  it('nothing is swallowed for a service that has no plain text before TLS, nor where the server must greet behind TLS or never greets', async () => {
    for (const protocol of ['none', ...preambleNames.filter((name) => !greetings.some(([one]) => one === name))]) {
      assert.equal(await through(protocol, ['220 x\r\n', '* OK x\r\n', '+OK x\r\n']), '220 x\r\n* OK x\r\n+OK x\r\n', protocol);
    }
  });

  it('a name that is no protocol is BAD_ARGUMENT: a greeting too many would be the silent outcome', () => {
    const socket = new net.Socket();
    assert.throws(() => withoutGreeting(socket, 'imap4'), (error: unknown) => error instanceof TlsPoolError && error.code === 'BAD_ARGUMENT' && error.message.includes('"imap4"'));
    assert.equal(withoutGreeting(socket, 'imap'), socket);
  });

  it('whatever is written comes through but for the greeting, in any pieces', async () => {
    await fc.assert(fc.asyncProperty(fc.string({ unit: 'binary-ascii', maxLength: 40 }), fc.array(fc.nat(60), { maxLength: 5 }), async (behind, cuts) => {
      const whole = `* OK x\r\n${behind}`;
      const at = [...new Set(cuts.filter((cut) => cut > 0 && cut < whole.length))].sort((a, b) => a - b);
      const pieces = [0, ...at].map((from, index) => whole.slice(from, at[index] ?? whole.length));
      assert.equal(await through('imap', pieces), behind);
    }), { numRuns: 60 });
  });

  it('a server hears its client only when it has greeted, and then all of it', async () => {
    const [ours, theirs] = sockets.socketpair('stream');
    const server = withoutGreeting(new net.Socket({ fd: ours }), 'smtp');
    const heard: string[] = [];
    server.setEncoding('latin1').on('data', (text: string) => { heard.push(text); });
    sockets.send(theirs, Buffer.from('EHLO client\r\n'));
    // It waits in the kernel through several turns of the loop.
    for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => { setImmediate(resolve); });
    assert.deepEqual(heard, []);
    const data = once(server, 'data');
    server.write('220 here\r\n');
    await data;
    assert.deepEqual(heard, ['EHLO client\r\n']);
    server.destroy();
    sockets.close(theirs);
  });

  it('costs nothing once the greeting has passed: the socket writes as its class does', async () => {
    const [ours, theirs] = sockets.socketpair('stream');
    const socket = withoutGreeting(new net.Socket({ fd: ours }), 'pop3');
    assert(Object.hasOwn(socket, '_write'));
    await new Promise((resolve) => { socket.write('+OK\r\n', resolve); });
    assert(!Object.hasOwn(socket, '_write') && !Object.hasOwn(socket, '_writev'));
    socket.destroy();
    sockets.close(theirs);
  });
});
