/** The proxy as a process: what it logs, and when it reads its configuration again. */
import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { once, EventEmitter } from 'node:events';
import { readFileSync, renameSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { SessionInfo } from 'libtlspool/protocol';
import { Log } from 'tlspool-common/log';
import { loadProxyConfig } from 'tlspool-proxy/dist/config/load.js';
import type { ProxyConfig } from 'tlspool-proxy/dist/config/types.js';
import { clientSubject, logConnection } from 'tlspool-proxy/dist/log.js';
import { ConnectionRecord } from 'tlspool-proxy/dist/record.js';
import { ProxyReloader, stateOf } from 'tlspool-proxy/dist/reload.js';
import { tempFolder } from '../support/cleanup.js';
import { issue, makeCa } from '../support/pki.js';
import { within } from '../support/wait.js';

describe('proxy: the log of connections', () => {
  let leaf: Buffer;
  before(async () => {
    const folder = tempFolder();
    const { certFile } = await issue(await makeCa(path.join(folder, 'ca')), path.join(folder, 'leaf'), { commonName: 'A Client', sans: ['DNS:client'] });
    leaf = new X509Certificate(readFileSync(certFile)).raw;
  });
  const info = (authorized: boolean): SessionInfo => ({
    role: 'server', protocol: 'TLSv1.3', cipher: 'TLS_AES_128_GCM_SHA256', cipherName: 'TLS_AES_128_GCM_SHA256', servername: 'mail.example', alpn: 'imap', localid: 'mail', resumed: false,
    authorized, peerCertificates: [leaf],
  });
  function written(record: ConnectionRecord, format: 'json' | 'text'): string[] {
    const lines: string[] = [];
    logConnection(new Log('info', { format, destination: { write: (line) => { lines.push(line); } } }), record);
    return lines;
  }

  it('one connection is one line of JSON with what is known of it', () => {
    const record = new ConnectionRecord('imap', '143', { family: 'IPv6', address: '2001:db8::1', port: 5 });
    record.tls = info(true);
    record.backend = 'localhost:1143';
    record.closed({ ctlkey: Buffer.alloc(16), how: 'closed', octetsReceived: 7, octetsSent: 9 });
    const [line = '', ...more] = written(record, 'json');
    assert.deepEqual(more, []);
    const { time: _time, pid: _pid, durationMs, ...rest } = JSON.parse(line) as Record<string, unknown>;
    assert.equal(typeof durationMs, 'number');
    assert.deepEqual(rest, {
      level: 'info', msg: 'connection', service: 'imap', listener: '143', peer: '[2001:db8::1]:5', servername: 'mail.example', protocol: 'TLSv1.3', cipher: 'TLS_AES_128_GCM_SHA256',
      resumed: false, authorized: true, localid: 'mail', alpn: 'imap', backend: 'localhost:1143', octetsIn: 7, octetsOut: 9, ended: 'closed', clientSubject: 'CN=A Client',
    });
  });
  it('as text it is one line, too, whatever a client has put into its server name', () => {
    const record = new ConnectionRecord('imap', '143', { family: 'IPv4', address: '192.0.2.1', port: 5 });
    record.servername = 'a\n2026 info connection service="x\u202e';
    record.error = { code: 'NAME_REFUSED', text: 'no route serves this server name' };
    record.ending = 'refused';
    const [line = '', ...more] = written(record, 'text');
    assert.deepEqual(more, []);
    assert.match(line, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z info connection service=imap listener=143 peer=192\.0\.2\.1:5 servername="a\\\\u\{a\}2026 info connection service=\\"x\\\\u\{202e\}" octetsIn=0 octetsOut=0 durationMs=\d+ ended=refused code=NAME_REFUSED error="no route serves this server name"\n$/);
  });
  it('the subject of a certificate that was not verified is not shown', () => {
    assert.equal(clientSubject(info(true)), 'CN=A Client');
    assert.equal(clientSubject(info(false)), undefined);
    assert.equal(clientSubject({ authorized: true, peerCertificates: [] }), undefined);
    assert.equal(clientSubject({ authorized: true, peerCertificates: [Buffer.from('garbage')] }), undefined);
  });
});

describe('log lines as text', () => {
  function written(level: 'debug' | 'warn', say: (log: Log) => void): string[] {
    const lines: string[] = [];
    say(new Log(level, { format: 'text', destination: { write: (line) => { lines.push(line.replace(/^\S+ /, '')); } } }));
    return lines;
  }
  it('words stay plain, and what would be taken for something else is quoted and escaped', () => {
    assert.deepEqual(written('debug', (log) => {
      log.info('hello', { plain: 'a/b:c', number: 5, flag: false, absent: undefined, empty: '', space: 'a b', equals: 'a=b', quote: 'a"b\\', control: 'a\x1b[31m\r\nb\x7f\x9b', direction: '\u202eb', line: '\u2028' });
    }), ['info hello plain=a/b:c number=5 flag=false empty="" space="a b" equals="a=b" quote="a\\"b\\\\" control="a\\u{1b}[31m\\u{d}\\u{a}b\\u{7f}\\u{9b}" direction="\\u{202e}b" line="\\u{2028}"\n']);
  });
  it('a line feed in the message itself makes no second line', () => { assert.deepEqual(written('debug', (log) => { log.warn('a\nb'); }), ['warn a\\u{a}b\n']); });
  it('levels below the one that was asked for are left out', () => {
    assert.deepEqual(written('warn', (log) => { log.debug('1'); log.info('2'); log.warn('3'); log.error('4'); }), ['warn 3\n', 'error 4\n']);
    assert.equal(written('debug', (log) => { log.debug('1'); }).length, 1);
  });
  it('values of 256 characters are whole, longer ones are cut', () => {
    assert.deepEqual(written('debug', (log) => { log.info('x', { a: 'y'.repeat(256), b: 'z'.repeat(257) }); }), [`info x a=${'y'.repeat(256)} b="${'z'.repeat(256)}... (257 characters)"\n`]);
  });
});

describe('proxy: reload', () => {
  const made: ProxyReloader[] = [];
  afterEach(() => { for (const reloader of made.splice(0)) reloader.stop(); });
  const text = (port: number, more = ''): string => `${more}services: [{name: s, protocol: imap, listen: ${port}, backend: {fd: /b}}]\n`;
  const portOf = ({ services }: ProxyConfig): string => [...services[0]!.listen.keys()].join(' ');

  /** A reloader on a file, with what it put in force and said. */
  function onFile(file = path.join(tempFolder(), 'proxy.yaml')) {
    writeFileSync(file, text(1), { mode: 0o600 });
    const seen = new EventEmitter();
    const applied: string[] = [];
    const said: string[] = [];
    const behaviour = { fail: undefined as Error | undefined };
    const say = (line: string, fields: { readonly [name: string]: string | number | boolean | undefined } = {}): void => { said.push(`${line} ${String(fields['reason'] ?? '')}`.trim()); seen.emit('said'); };
    const reloader = new ProxyReloader({
      file, state: stateOf(file), config: loadProxyConfig(file), log: { info: say, error: say }, debounceMs: 5, pollMs: 3_600_000,
      apply: (config) => {
        if (behaviour.fail !== undefined) throw behaviour.fail;
        applied.push(portOf(config));
      },
    });
    made.push(reloader);
    return { file, reloader, applied, said, behaviour, next: () => within(once(seen, 'said'), 'a line of the log') };
  }

  it('a configuration that was changed is put in force', async () => {
    const { file, reloader, applied, said } = onFile();
    writeFileSync(file, text(2));
    await reloader.reload();
    assert.deepEqual([applied, said, portOf(reloader.config)], [['2'], ['configuration reloaded'], '2']);
  });
  it('one that says the same is not put in force again, and whoever asked is told', async () => {
    const { file, reloader, applied, said } = onFile();
    writeFileSync(file, `# a comment\n${text(1)}`);
    await reloader.reload();
    assert.deepEqual([applied, said], [[], ['configuration read again: it is what is in force']]);
  });
  it('a mistake changes nothing, and is logged once per mistake', async () => {
    const { file, reloader, applied, said } = onFile();
    writeFileSync(file, 'services: []\nx: 1\n');
    await reloader.reload();
    assert.deepEqual(applied, []);
    assert.equal(said.length, 2);
    assert.match(said[0]!, /^reload failed; everything stays as it was .*proxy\.yaml:1:11: services/);
    assert.match(said[1]!, /proxy\.yaml:2:1: x: unknown key/);
    assert.equal(portOf(reloader.config), '1');
    writeFileSync(file, text(2));
    await reloader.reload();
    assert.deepEqual([applied, portOf(reloader.config)], [['2'], '2']);
  });
  it('a configuration that cannot be put in force leaves the old one in force, and is tried again', async () => {
    const { file, reloader, applied, said, behaviour } = onFile();
    behaviour.fail = new Error('the address is taken');
    writeFileSync(file, text(2));
    await reloader.reload();
    assert.deepEqual([said, portOf(reloader.config)], [['reload failed; everything stays as it was the address is taken'], '1']);
    behaviour.fail = undefined;
    await reloader.reload();
    assert.deepEqual([applied, portOf(reloader.config)], [['2'], '2']);
  });
  it('keys that need a restart are refused by name', async () => {
    const { file, reloader, applied, said } = onFile();
    for (const [more, key] of [['pool: /p\n', 'pool'], ['log: {level: debug}\n', 'log.level'], ['log: {format: text}\n', 'log.format']] as const) {
      writeFileSync(file, text(2, more));
      await reloader.reload();
      assert.match(said.at(-1)!, new RegExp(`${key} changed, which needs a restart`));
    }
    assert.deepEqual(applied, []);
    writeFileSync(file, text(2, 'drainMs: 1\nconnections: 5\n'));
    await reloader.reload();
    assert.deepEqual([applied, reloader.config.drainMs], [['2'], 1]);
  });
  const ways: [title: string, change: (file: string) => void][] = [
    ['written in place', (file) => { writeFileSync(file, text(2)); }],
    ['replaced by renaming', (file) => { writeFileSync(`${file}.new`, text(2), { mode: 0o600 }); renameSync(`${file}.new`, file); }],
  ];
  for (const [title, change] of ways) {
    it(`a file that is ${title} is noticed`, async () => {
      const { file, reloader, applied, next } = onFile();
      reloader.start();
      const told = next();
      change(file);
      await told;
      assert.deepEqual(applied, ['2']);
    });
  }
  it('a symbolic link that is swapped is noticed', async () => {
    const folder = tempFolder();
    const link = path.join(folder, 'proxy.yaml');
    symlinkSync('first.yaml', link);
    const { reloader, applied, next } = onFile(link);
    reloader.start();
    const told = next();
    writeFileSync(path.join(folder, 'second.yaml'), text(2), { mode: 0o600 });
    symlinkSync('second.yaml', `${link}.new`);
    renameSync(`${link}.new`, link);
    await told;
    assert.deepEqual(applied, ['2']);
  });
  it('what changed between reading and watching is noticed', async () => {
    const { file, reloader, applied, next } = onFile();
    writeFileSync(file, text(2));
    const told = next();
    reloader.start();
    await told;
    assert.deepEqual(applied, ['2']);
  });
  it('after stop() nothing is put in force', async () => {
    const { file, reloader, applied } = onFile();
    reloader.stop();
    writeFileSync(file, text(2));
    await reloader.reload();
    assert.deepEqual(applied, []);
  });
});
