import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { escapeText, fitText, formatMessage, wireTracer } from 'libtlspool/protocol';
import type { Message } from 'libtlspool/protocol';

const ctlkey = Buffer.from('00112233445566778899aabbccddeeff', 'hex');
const prng: Message = { type: 'request', op: 'prng', id: 3, body: { ctlkey, label: 'EXPORTER-x', context: Buffer.from('ctx'), length: 32 } };

describe('protocol: TLSPOOL_TRACE=wire', () => {
  it('shows a message on one line, with its secrets masked', () => {
    assert.equal(formatMessage(prng), 'request prng #3 {ctlkey: <secret, 16 octets>, label: "EXPORTER-x", context: <637478>, length: 32}');
    assert.equal(formatMessage({ type: 'reply', op: 'prng', id: 3, body: { octets: Buffer.from('sssh') } }), 'reply prng #3 {octets: <secret, 4 octets>}');
  });

  it('escapes what a peer wrote, and cuts long values', () => {
    const line = formatMessage({ type: 'error', op: 'x\n', id: 1, body: { code: 'X', text: `"\u001b[2J\\\u202e${'y'.repeat(2000)}` } });
    assert.ok(line.startsWith('error x\\u{a} #1 {code: "X", text: "\\"\\u{1b}[2J\\u{5c}\\u{202e}yyy'), line);
    assert.ok(line.length < 400, String(line.length));
    assert.match(formatMessage({ type: 'request', op: 'ping', id: 1, body: { payload: Buffer.alloc(17, 1) } }), /<(01){16}…, 17 octets>/);
  });

  it('is off unless asked for', () => {
    assert.equal(wireTracer(undefined), undefined);
    assert.equal(wireTracer(''), undefined);
    assert.equal(wireTracer('wires'), undefined);
    const lines: string[] = [];
    wireTracer('other,wire', (line) => lines.push(line))?.('sent', prng);
    assert.match(lines.join(''), /^tlspool\[\d+\] -> request prng #3 [^\n]*\n$/);
  });

  it('goes to standard error from both ends of the codec, without a secret', async () => {
    const script = `import { encodeMessage, decodeMessage } from 'libtlspool/protocol';
      const packet = encodeMessage({ type: 'request', op: 'detach', id: 1, body: { ctlkey: Buffer.from('${ctlkey.toString('hex')}', 'hex') } });
      decodeMessage(packet, 'toPool');`;
    const run = (env: Record<string, string>): Promise<{ stdout: string; stderr: string }> =>
      promisify(execFile)(process.execPath, ['--input-type=module', '-e', script], { cwd: import.meta.dirname, env: { ...process.env, TLSPOOL_TRACE: '', ...env } });
    const { stderr } = await run({ TLSPOOL_TRACE: 'wire' });
    assert.match(stderr, /-> request detach #1 \{ctlkey: <secret, 16 octets>\}\n.*<- request detach #1/);
    assert.ok(!stderr.includes('0011'));
    assert.doesNotMatch((await run({})).stderr, /detach/);
  });
});

describe('protocol: text helpers', () => {
  it('escapeText leaves nothing but printable ASCII', () => {
    assert.equal(escapeText('a\\b\t\u0085é😀'), 'a\\u{5c}b\\u{9}\\u{85}\\u{e9}\\u{1f600}');
    assert.equal(escapeText('x'.repeat(64)), 'x'.repeat(64));
    assert.equal(escapeText('x'.repeat(65)), `${'x'.repeat(64)}…`);
  });

  it('fitText cuts between characters and replaces what cannot be sent', () => {
    assert.equal(fitText('abc', 3), 'abc');
    assert.equal(fitText('abcd', 3), 'abc');
    assert.equal(fitText('é'.repeat(3), 6), 'ééé');
    assert.equal(fitText('é'.repeat(3), 5), 'éé');
    assert.equal(fitText('a😀', 4), 'a');
    assert.equal(fitText('\ufeff\ufeffa\0b\ud800', 64), '\ufffd\ufeffa\ufffdb\ufffd');
    assert.equal(fitText('😀', 0), '');
  });
});
