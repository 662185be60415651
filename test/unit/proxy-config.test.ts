/** The configuration of tlspool-proxy: what is taken, and what is said of what is not. */
import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { preambleNames, preambles } from 'libtlspool/preamble';
import { TlsPoolError } from 'libtlspool/protocol';
import type { ConfigError } from 'tlspool-common/config';
import { loadProxyConfig } from 'tlspool-proxy/dist/config/load.js';
import type { ServiceConfig } from 'tlspool-proxy/dist/config/types.js';

const host = { cwd: '/', hostname: 'host.example' };

describe('configuration of the proxy', () => {
  let folder: string;
  beforeEach(() => { folder = mkdtempSync(path.join(tmpdir(), 'pcfg-')); });
  afterEach(() => { rmSync(folder, { recursive: true, force: true }); });

  const file = (): string => path.join(folder, 'proxy.yaml');
  function load(text: string) {
    writeFileSync(file(), text, { mode: 0o600 });
    return loadProxyConfig(file(), host);
  }
  /** Lines of the error, without the file's name. */
  function lines(text: string): string[] {
    try {
      load(text);
    } catch (error) {
      assert.ok(error instanceof TlsPoolError && error.code === 'CONFIG_BAD', String(error));
      return error.message.split('\n').map((line) => line.replace(`${file()}:`, ''));
    }
    throw new assert.AssertionError({ message: `accepted: ${text}` });
  }
  const fields = (text: string): string[] => {
    try { load(text); } catch (error) { return (error as ConfigError).problems.map(({ field }) => field); }
    return [];
  };
  /** One service with these keys, all in one line. */
  const yaml = (keys: Record<string, unknown>): string => JSON.stringify({ services: [{ name: 's', protocol: 'imap', listen: '143', ...('routes' in keys ? {} : { backend: { connect: 'localhost:1143' } }), ...keys }] });
  const service = (keys: Record<string, unknown>): ServiceConfig => load(yaml(keys)).services[0]!;
  const problem = (keys: Record<string, unknown>): string => {
    const [first, ...more] = lines(yaml(keys));
    assert.deepEqual(more, []);
    return first!.replace(/^\d+:\d+: /, '');
  };
  const listens = (...listen: unknown[]) => [...service({ listen }).listen];

  describe('as a whole', () => {
    it('the smallest one has every default that the documentation says', () => {
      assert.deepEqual(load('services:\n  - name: imap\n    protocol: imap\n    listen: 143\n    backend: {connect: "127.0.0.1:1143"}\n'), {
        pool: undefined, log: { level: 'info', format: 'json' }, connections: 10_000, drainMs: 30_000,
        services: [{
          name: 'imap', protocol: 'imap', listen: new Map([['143', { kind: 'tcp', host: '::', port: 143 }]]), tls: 'required',
          localid: undefined, clientAuth: undefined, hostname: 'host.example', capabilities: undefined, proxyFrom: [],
          routes: [{ servernames: [], alpn: [], listeners: [], localid: undefined, backend: { handoff: 'connect', to: { host: '127.0.0.1', port: 1143 }, proxyProtocol: 0 } }],
          connections: 10_000, perAddress: 100, preambleMs: 60_000, backendMs: 10_000,
        }],
      });
    });
    it('everything that can be said arrives', () => {
      const config = load(`
pool: pool.sock
log: {level: debug, format: text}
connections: 5
drainMs: 0
services:
  - name: mail
    protocol: smtp
    listen:
      - {address: "unix:in.sock", mode: 0600, name: local}
      - "systemd:smtp"
    tls: optional
    localid: mx
    clientAuth: request
    hostname: MX.Example.ORG
    capabilities: [SIZE 1000, 8BITMIME]
    proxyFrom: [10.0.0.0/8, unix]
    connections: 4
    perAddress: 3
    preambleMs: 200
    backendMs: 300
    routes:
      - servername: [A.example, "*.b.example"]
        alpn: [x, y]
        listener: local
        localid: other
        backend: {fd: hand.sock, relay: true, checkServername: true}
      - listener: systemd:smtp
        backend: {exec: [/bin/cat, -u], user: root, max: 2}
    backend: {connect: "unix:out.sock", proxyProtocol: 2}
`);
      assert.deepEqual(config, {
        pool: path.join(folder, 'pool.sock'), log: { level: 'debug', format: 'text' }, connections: 5, drainMs: 0,
        services: [{
          name: 'mail', protocol: 'smtp', tls: 'optional', localid: 'mx', clientAuth: 'request', hostname: 'mx.example.org', capabilities: ['SIZE 1000', '8BITMIME'],
          listen: new Map([['local', { kind: 'unix', path: path.join(folder, 'in.sock'), mode: 0o600 }], ['systemd:smtp', { kind: 'systemd', name: 'smtp' }]]),
          proxyFrom: ['10.0.0.0/8', 'unix'], connections: 4, perAddress: 3, preambleMs: 200, backendMs: 300,
          routes: [
            { servernames: ['a.example', '*.b.example'], alpn: ['x', 'y'], listeners: ['local'], localid: 'other', backend: { handoff: 'fd', path: path.join(folder, 'hand.sock'), relay: true, checkServername: true } },
            { servernames: [], alpn: [], listeners: ['systemd:smtp'], localid: undefined, backend: { handoff: 'exec', command: ['/bin/cat', '-u'], user: { name: 'root', uid: 0, gid: 0 }, max: 2 } },
            { servernames: [], alpn: [], listeners: [], localid: undefined, backend: { handoff: 'connect', to: { path: path.join(folder, 'out.sock') }, proxyProtocol: 2 } },
          ],
        }],
      });
    });
    it('a programs\' limit that is not given is 100', () => {
      assert.deepEqual(service({ backend: { exec: ['/bin/cat'] } }).routes[0].backend, { handoff: 'exec', command: ['/bin/cat'], user: undefined, max: 100 });
    });
    it('all mistakes are reported at once, each with line, column, what was seen and the cure', () => {
      assert.deepEqual(lines('conections: 5\nservices:\n  - name: a\n    protocol: imapp\n    listen: foo\n    tls: maybe\n'), [
        '1:1: conections: unknown key "conections"; did you mean "connections"?',
        `4:15: services[0].protocol: "imapp" is not one of ${preambleNames.filter((name) => preambles[name].server !== undefined).join(', ')}; did you mean "imap"?`,
        '5:13: services[0].listen[0]: "foo" is not an address to listen on: "127.0.0.1:143", "[::1]:143", "143" for all addresses, "unix:/path" or "systemd:NAME"; addresses are numeric',
        '6:10: services[0].tls: "maybe" is not one of required, optional',
      ]);
    });
    it('keys that depend on each other are reported at the place of the mistake', () => {
      assert.deepEqual(lines('services:\n  - name: a\n    protocol: imap\n    listen: [143, 144]\n    backend:\n      connect: "localhost:1"\n      relay: true\n  - name: a\n    protocol: imap\n    listen:\n      - 127.0.0.1:144\n    backend: {connect: "localhost:1"}\n'), [
        '7:14: services[0].backend.relay: goes with fd: only a backend that takes descriptors has a way to ask',
        '8:11: services[1].name: "a" is the name of services[0] already; each needs its own',
        '11:9: services[1].listen[0]: "127.0.0.1:144" is taken by services[0].listen[1] (144): both cannot listen at the same time; change or remove one of them',
      ]);
    });
    it('no service at all is refused', () => {
      assert.deepEqual(lines('{}'), ['1:1: services: required key is missing; it takes a list']);
      assert.match(lines('services: []\n')[0]!, /a list of at least 1/);
    });
    it('a file that others can write is refused, and one that others can read is not', () => {
      writeFileSync(file(), yaml({}), { mode: 0o600 });
      chmodSync(file(), 0o646);
      assert.throws(() => loadProxyConfig(file(), host), { code: 'CONFIG_BAD', message: /mode 0646.*chmod go-w/ });
      chmodSync(file(), 0o644);
      assert.equal(loadProxyConfig(file(), host).services.length, 1);
    });
    it('paths are relative to the folder of the file, through a relative name too', () => {
      writeFileSync(file(), yaml({ listen: 'unix:s' }), { mode: 0o600 });
      const { listen } = loadProxyConfig('proxy.yaml', { ...host, cwd: folder }).services[0]!;
      assert.deepEqual([...listen.values()], [{ kind: 'unix', path: path.join(folder, 's'), mode: 0o660 }]);
    });
  });

  describe('protocols', () => {
    for (const name of preambleNames) {
      if (preambles[name].server !== undefined) it(`${name} is served`, () => { assert.equal(service({ protocol: name, backend: { fd: '/b' } }).protocol, name); });
      else it(`${name} is refused, because only clients speak it`, () => { assert.match(problem({ protocol: name }), /services\[0\]\.protocol: ".+" is not a protocol of servers: only clients speak it, on their way out; one of smtp, /); });
      if (preambles[name].server?.plainBackend === false) {
        it(`${name} goes with fd, and with connect and exec it is refused with the reason`, () => {
          assert.equal(service({ protocol: name, backend: { fd: '/b' } }).routes[0].backend.handoff, 'fd');
          assert.match(problem({ protocol: name }), /backend\.connect: does not go with .*proof of its password is made from the greeting.*use fd/);
          assert.match(problem({ protocol: name, backend: { exec: ['/bin/cat'] } }), /backend\.exec: does not go with .*use fd/);
          assert.match(problem({ protocol: name, routes: [{ backend: { connect: 'localhost:1' } }] }), /routes\[0\]\.backend\.connect: does not go with/);
        });
      }
    }
    it('mysql is among those that need a backend which takes descriptors', () => { assert.equal(preambles.mysql.server?.plainBackend, false); });
    it('optional TLS is refused for none and beside clientAuth require, and taken for imap beside request', () => {
      assert.match(problem({ protocol: 'none', tls: 'optional' }), /does not go with the protocol none/);
      assert.match(problem({ clientAuth: 'require', tls: 'optional' }), /does not go with clientAuth require/);
      assert.deepEqual([service({ clientAuth: 'request', tls: 'optional' }).tls, service({ clientAuth: 'require' }).clientAuth], ['optional', 'require']);
      assert.equal(fields(yaml({ clientAuth: 'none' }))[0], 'services[0].clientAuth');
    });
  });

  describe('listening addresses', () => {
    it('each form is taken, and is the listener\'s name as it was written', () => {
      assert.deepEqual(listens('127.0.0.1:143', '[::1]:143', '144', 145, '[0:0:0:0:0:0:0:2]:1', '127.0.0.1:0', 'systemd:imap', { address: 'unix:/s', name: 'local' }), [
        ['127.0.0.1:143', { kind: 'tcp', host: '127.0.0.1', port: 143 }], ['[::1]:143', { kind: 'tcp', host: '::1', port: 143 }],
        ['144', { kind: 'tcp', host: '::', port: 144 }], ['145', { kind: 'tcp', host: '::', port: 145 }], ['[0:0:0:0:0:0:0:2]:1', { kind: 'tcp', host: '::2', port: 1 }],
        ['127.0.0.1:0', { kind: 'tcp', host: '127.0.0.1', port: 0 }], ['systemd:imap', { kind: 'systemd', name: 'imap' }], ['local', { kind: 'unix', path: '/s', mode: 0o660 }],
      ]);
      assert.deepEqual(listens('65535'), [['65535', { kind: 'tcp', host: '::', port: 65_535 }]]);
    });
    for (const text of ['localhost:143', '65536', '127.0.0.1:65536', '127.0.0.1', '::1:143', '[::1]', '[::1%eth0]:143', '127.0.0.256:1', '[127.0.0.1]:1', ':143', '', 'unix:', 'systemd:', 'systemd:a:b', 'http://x:1', '-1', '1.5', 'unix:/a\0b', null, true]) {
      it(`${JSON.stringify(text)} is refused`, () => { assert.match(problem({ listen: text }), /services\[0\]\.listen\[0\]: .* is not an address to listen on/); });
    }
    it('a mistake in a map is placed at its key', () => {
      assert.match(problem({ listen: [{ address: 'foo' }] }), /^services\[0\]\.listen\[0\]\.address: "foo"/);
      assert.match(lines(yaml({ listen: [{ adress: '1' }] })).join('\n'), /listen\[0\]\.adress: unknown key "adress"; did you mean "address"/);
    });
    const clashing: [one: unknown, other: unknown][] = [
      ['127.0.0.1:143', '127.0.0.1:143'], ['143', '127.0.0.1:143'], ['[::1]:143', '143'], ['0.0.0.0:143', '127.0.0.1:143'], ['[::]:143', '0.0.0.0:143'], ['[::1]:9', '[0:0:0:0:0:0:0:1]:9'],
      ['unix:/a', 'unix:/b/../a'], ['systemd:a', { address: 'systemd:a', name: 'b' }], ['127.0.0.1:0', { address: '127.0.0.1:0', name: 'b' }],
    ];
    for (const [one, other] of clashing) {
      it(`${JSON.stringify(one)} and ${JSON.stringify(other)} are refused together, in one service and in two`, () => {
        const twice = { name: 't', protocol: 'pop3', listen: other, backend: { fd: '/b' } };
        const two = lines(JSON.stringify({ services: [{ ...twice, name: 's', listen: one }, twice] }));
        assert.match(two.join('\n'), /^\d+:\d+: services\[1\]\.listen\[0\]: .* is taken by services\[0\]\.listen\[0\]/);
        assert.ok(lines(yaml({ listen: [one, other] })).some((line) => line.includes('is taken by services[0].listen[0]')));
      });
    }
    it('what can be listened on together is taken together', () => {
      assert.equal(listens('127.0.0.1:143', '127.0.0.2:143', '[::1]:143', '127.0.0.1:144', 'unix:/a', 'unix:/b', 'systemd:a', 'systemd:b', '0.0.0.0:9', '[::1]:9', '127.0.0.1:0', '0', '[::1]:0').length, 13);
    });
    it('two listeners of one name are refused', () => {
      assert.match(problem({ listen: [{ address: '1', name: 'a' }, { address: '2', name: 'a' }] }), /listen\[1\]: "a" is the name of listen\[0\] already/);
    });
    it('a mode is for UNIX sockets, in any octal spelling', () => {
      for (const spelling of ['0600', '0o600', '"0600"', '600']) {
        const [address] = load(`services: [{name: s, protocol: imap, listen: {address: "unix:/a", mode: ${spelling}}, backend: {fd: /b}}]`).services[0]!.listen.values();
        assert.deepEqual(address, { kind: 'unix', path: '/a', mode: 0o600 }, spelling);
      }
      assert.match(problem({ listen: { address: '143', mode: '0600' } }), /listen\.mode: goes with a UNIX socket only|listen\[0\]\.mode: goes with a UNIX socket only/);
      assert.match(problem({ listen: { address: 'unix:/a', mode: '0060' } }), /octal permissions/);
    });
    it('a path of 107 octets is taken and one of 108 is refused, wherever a socket is named', () => {
      const socket = `/${'s'.repeat(106)}`;
      assert.deepEqual(listens(`unix:${socket}`), [[`unix:${socket}`, { kind: 'unix', path: socket, mode: 0o660 }]]);
      for (const backend of [{ fd: socket }, { connect: `unix:${socket}` }]) assert.ok(service({ backend }));
      assert.equal(load(JSON.stringify({ pool: socket, ...JSON.parse(yaml({})) as object })).pool, socket);
      for (const keys of [{ listen: `unix:${socket}s` }, { backend: { fd: `${socket}s` } }, { backend: { connect: `unix:${socket}s` } }]) assert.match(problem(keys), /has 108 octets; a UNIX socket's path has at most 107/);
      assert.match(lines(JSON.stringify({ pool: `${socket}s`, ...JSON.parse(yaml({})) as object }))[0]!, /pool: .* has 108 octets/);
    });
  });

  describe('backends', () => {
    it('an address to connect to may be a name', () => {
      const to = (connect: string) => { const { backend } = service({ backend: { connect } }).routes[0]; return backend.handoff === 'connect' ? backend.to : undefined; };
      assert.deepEqual(to('Mail.Example.org:25'), { host: 'mail.example.org', port: 25 });
      assert.deepEqual(to('[::1]:65535'), { host: '::1', port: 65_535 });
      assert.deepEqual(to('10.0.0.1:1'), { host: '10.0.0.1', port: 1 });
      assert.deepEqual(to('unix:/s'), { path: '/s' });
    });
    for (const connect of ['mail', 'mail:0', 'mail:65536', '25', '::1:25', '1.2.3.256:25', 'a b:1', '*.x:1', 'unix:', 5]) {
      it(`connect ${JSON.stringify(connect)} is refused`, () => { assert.match(problem({ backend: { connect } }), /backend\.connect: .* is not an address to connect to/); });
    }
    it('none, two and three ways are refused', () => {
      assert.match(problem({ backend: {} }), /backend: says nowhere where connections go; add one of fd, connect and exec/);
      assert.match(problem({ backend: { fd: '/a', connect: 'a:1' } }), /backend: has fd and connect; keep one of them/);
      assert.match(problem({ backend: { fd: '/a', connect: 'a:1', exec: ['/bin/cat'] } }), /has fd and connect and exec/);
    });
    const misplaced: [key: string, value: unknown, goesWith: string][] = [['relay', true, 'fd'], ['checkServername', true, 'fd'], ['proxyProtocol', 1, 'connect'], ['user', 'root', 'exec'], ['max', 1, 'exec']];
    const ways: Record<string, unknown> = { fd: '/b', connect: 'b:1', exec: ['/bin/cat'] };
    for (const [key, value, goesWith] of misplaced) {
      it(`${key} goes with ${goesWith} and with nothing else`, () => {
        for (const [way, where] of Object.entries(ways)) {
          const keys = { backend: { [way]: where, [key]: value } };
          if (way === goesWith) assert.ok(service(keys));
          else assert.match(problem(keys), new RegExp(`backend\\.${key}: goes with ${goesWith}`));
        }
      });
    }
    it('a program must have an absolute path, be there, and be executable', () => {
      assert.match(problem({ backend: { exec: ['cat'] } }), /backend\.exec\[0\]: the program cat has no absolute path/);
      assert.match(problem({ backend: { exec: ['/bin/no-such-program'] } }), /does not exist/);
      const script = path.join(folder, 'script');
      writeFileSync(script, '#!/bin/sh\n', { mode: 0o644 });
      assert.match(problem({ backend: { exec: [script] } }), /is not executable/);
      chmodSync(script, 0o755);
      assert.ok(service({ backend: { exec: [script] } }));
      assert.match(problem({ backend: { exec: [] } }), /a list of at least 1/);
      assert.match(problem({ backend: { exec: '/bin/cat' } }), /"\/bin\/cat" is not a list/);
    });
    it('a user must exist', () => { assert.match(problem({ backend: { exec: ['/bin/cat'], user: 'no-such-user-here' } }), /backend\.user: "no-such-user-here" is not a user that exists on this host/); });
  });

  describe('routes', () => {
    const to = (conditions: Record<string, unknown>) => ({ ...conditions, backend: { fd: '/b' } });
    it('neither a backend nor a route is refused', () => {
      assert.match(problem({ routes: [] }), /services\[0\]: says nowhere where connections go/);
      assert.match(problem({ backend: undefined }), /says nowhere where connections go/);
    });
    it('a route without a backend is refused', () => { assert.match(problem({ routes: [{ servername: 'a' }] }), /routes\[0\]\.backend: required key is missing/); });
    it('the default route comes last, wherever it is written', () => {
      const { routes } = service({ backend: { fd: '/default' }, routes: [to({ servername: 'a' })] });
      assert.deepEqual(routes.map(({ servernames, backend }) => [servernames, backend.handoff === 'fd' && backend.path]), [[['a'], '/b'], [[], '/default']]);
    });
    it('a route behind one that takes everything is refused, and the other order is taken', () => {
      assert.match(problem({ routes: [to({}), to({ servername: 'a' })] }), /routes\[1\]: can never match: routes\[0\] takes all of its connections/);
      assert.equal(service({ routes: [to({ servername: 'a' }), to({})] }).routes.length, 2);
      assert.match(problem({ backend: { fd: '/d' }, routes: [to({})] }), /services\[0\]\.backend: can never be reached/);
    });
    const covered: [title: string, first: Record<string, unknown>, second: Record<string, unknown>][] = [
      ['a name behind its wildcard', { servername: '*.x.example' }, { servername: 'a.x.example' }],
      ['a part of the names', { servername: ['a', 'b'] }, { servername: 'b' }],
      ['the same name with an ALPN in addition', { servername: 'a' }, { servername: 'a', alpn: 'imap' }],
      ['a part of the protocols', { alpn: ['x', 'y'] }, { alpn: ['y'] }],
      ['a part of the listeners', { listener: ['143', '144'] }, { listener: 143, servername: 'a' }],
    ];
    for (const [title, first, second] of covered) {
      it(`${title} is refused, and the other order is taken`, () => {
        const listen = ['143', '144'];
        assert.match(problem({ listen, routes: [to(first), to(second)] }), /routes\[1\]: can never match/);
        assert.equal(service({ listen, routes: [to(second), to(first)] }).routes.length, 2);
      });
    }
    it('routes that only overlap are taken', () => {
      const pairs = [[{ servername: '*.x' }, { servername: ['a.x', 'b'] }], [{ servername: 'a', alpn: 'x' }, { servername: 'a' }], [{ listener: '143', servername: 'a' }, { servername: 'a' }], [{ servername: '*.x' }, { servername: 'x' }], [{ servername: '*.x' }, { servername: '*.y.x' }]];
      for (const pair of pairs) assert.equal(service({ routes: pair.map(to) }).routes.length, 2, JSON.stringify(pair));
    });
    it('a listener that the service has not is refused, with the one that was meant', () => {
      assert.match(problem({ listen: { address: '143', name: 'inside' }, routes: [to({ listener: 'insde' })] }), /routes\[0\]\.listener\[0\]: "insde" is no listener of this service; did you mean "inside"\?/);
      assert.match(problem({ routes: [to({ listener: 'zzzzzzz' })] }), /there are 143/);
    });
    it('optional TLS needs a way for clients without a name, on each listener', () => {
      const listen = ['143', '144'];
      assert.match(problem({ tls: 'optional', routes: [to({ servername: 'a' })] }), /services\[0\]\.tls: "optional" needs a backend for clients without TLS/);
      assert.match(problem({ tls: 'optional', listen, routes: [to({ servername: 'a' }), to({ listener: '143' })] }), /\(listener 144\)/);
      assert.ok(service({ tls: 'optional', listen, routes: [to({ servername: 'a' }), to({ listener: '143' }), to({ listener: '144' })] }));
      assert.ok(service({ tls: 'optional', backend: { fd: '/d' }, routes: [to({ servername: 'a' })] }));
    });
    it('names that are no host names are refused', () => {
      for (const servername of ['', '*', 'a..b', '127.0.0.1', '*.*.x']) assert.equal(fields(yaml({ routes: [to({ servername })] }))[0], 'services[0].routes[0].servername[0]', servername);
    });
    it('a protocol name of 255 octets is taken and one of 256 is refused; 32 of them are, and 33 are not', () => {
      assert.ok(service({ routes: [to({ alpn: 'x'.repeat(255) })] }));
      assert.equal(fields(yaml({ routes: [to({ alpn: 'x'.repeat(256) })] }))[0], 'services[0].routes[0].alpn[0]');
      const many = (count: number) => Array.from({ length: count }, (_, index) => `p${index}`);
      assert.equal(service({ routes: [to({ alpn: many(32) })] }).routes[0].alpn.length, 32);
      assert.match(problem({ routes: [to({ alpn: many(33) })] }), /a list of at most 32/);
    });
  });

  describe('values', () => {
    const ranges: [key: string, min: number, max: number][] = [['connections', 1, 1_000_000], ['perAddress', 1, 1_000_000], ['preambleMs', 100, 3_600_000], ['backendMs', 100, 600_000]];
    for (const [key, min, max] of ranges) {
      it(`${key} of a service is from ${min} to ${max}`, () => {
        for (const value of [min, max]) assert.equal(service({ [key]: value })[key as 'connections'], value);
        for (const value of [min - 1, max + 1, 1.5, '60s']) assert.deepEqual(fields(yaml({ [key]: value })), [`services[0].${key}`]);
      });
    }
    for (const [key, min, max] of [['connections', 1, 1_000_000], ['drainMs', 0, 86_400_000]] as const) {
      it(`${key} of the proxy is from ${min} to ${max}`, () => {
        const whole = (value: number) => JSON.stringify({ [key]: value, ...JSON.parse(yaml({})) as object });
        for (const value of [min, max]) assert.equal(load(whole(value))[key], value);
        for (const value of [min - 1, max + 1]) assert.deepEqual(fields(whole(value)), [key]);
      });
    }
    it('max of exec is from 1 to 10000', () => {
      const exec = (max: number) => ({ backend: { exec: ['/bin/cat'], max } });
      for (const max of [1, 10_000]) assert.ok(service(exec(max)));
      for (const max of [0, 10_001]) assert.deepEqual(fields(yaml(exec(max))), ['services[0].backend.max']);
    });
    it('versions of the PROXY protocol are 0, 1 and 2', () => {
      for (const proxyProtocol of [0, 1, 2]) assert.ok(service({ backend: { connect: 'a:1', proxyProtocol } }));
      for (const proxyProtocol of [-1, 3, 'v2']) assert.deepEqual(fields(yaml({ backend: { connect: 'a:1', proxyProtocol } })), ['services[0].backend.proxyProtocol']);
    });
    it('load balancers are addresses and networks without bits behind the prefix', () => {
      assert.equal(service({ proxyFrom: ['10.0.0.0/8', '::1', '0.0.0.0/0', 'unix'] }).proxyFrom.length, 4);
      for (const entry of ['10.0.0.1/8', '10.0.0.0/33', 'lb.example', '']) assert.match(problem({ proxyFrom: ['::1', entry] }), /^services\[0\]\.proxyFrom\[1\]: .*write an address or a network/);
    });
    it('names of services and listeners are words, and our name is one host name', () => {
      for (const name of ['a', 'imap-143.internal_x', 'x'.repeat(64)]) assert.equal(service({ name }).name, name);
      for (const name of ['', '-a', 'a b', 'a\n', 'x'.repeat(65)]) assert.deepEqual(fields(yaml({ name })), ['services[0].name'], name);
      for (const hostname of ['*.x', 'a b', '', '127.0.0.1']) assert.deepEqual(fields(yaml({ hostname })), ['services[0].hostname'], hostname);
    });
    it('capabilities are single lines: nobody can write a second reply into them', () => {
      assert.deepEqual(service({ capabilities: ['x'.repeat(255)] }).capabilities, ['x'.repeat(255)]);
      for (const capability of ['', 'A\r\n250 B', 'x'.repeat(256), 'a\0']) assert.deepEqual(fields(yaml({ capabilities: [capability] })), ['services[0].capabilities[0]']);
    });
  });
});
