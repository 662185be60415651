import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { TlsPoolError } from 'libtlspool/protocol';
import { type ConfigError, loadConfig, maxConfigOctets, prepareState } from 'tlspool/dist/config/index.js';
import type { Surroundings } from 'tlspool/dist/config/defaults.js';

const host: Surroundings = { uid: 1000, env: { XDG_RUNTIME_DIR: '/run/user/1000' }, home: '/home/u', cwd: '/', workers: 3, tlspoolGid: 77, systemRoots: '/roots.pem' };

describe('configuration', () => {
  let folder: string;
  beforeEach(() => { folder = mkdtempSync(path.join(tmpdir(), 'cfg-')); });
  afterEach(() => { rmSync(folder, { recursive: true, force: true }); });

  function write(text: string | Buffer): string {
    const file = path.join(folder, 'pool.yaml');
    writeFileSync(file, text, { mode: 0o600 });
    return file;
  }
  const load = (text: string | Buffer) => loadConfig(write(text), {}, host);
  function refusal(text: string | Buffer): ConfigError {
    try {
      load(text);
    } catch (error) {
      assert.ok(error instanceof TlsPoolError && error.code === 'CONFIG_BAD', String(error));
      return error as ConfigError;
    }
    throw new assert.AssertionError({ message: `accepted: ${String(text).slice(0, 200)}` });
  }
  const lines = (text: string) => refusal(text).message.split('\n').map((line) => line.replace(`${folder}/pool.yaml:`, ''));

  describe('positions', () => {
    it('an unknown key is refused at its place, with the key that was meant', () => {
      assert.deepEqual(lines('workers: 2\nsocket:\n  paht: /a\n'), ['3:3: socket.paht: unknown key "paht"; did you mean "path"?']);
    });
    it('an unknown key that resembles none lists the keys there are', () => {
      assert.match(lines('trust: {zzzzzz: 1}\n')[0]!, /^1:9: trust\.zzzzzz: unknown key "zzzzzz"; the keys here are roots$/);
    });
    it('all mistakes are reported at once, in the order of the file', () => {
      const text = 'identities:\n  - localid: a\n    directory: d\n    policy: modren\nlimits:\n  sessions: 0\nworkers: many\n';
      assert.deepEqual(lines(text), [
        '4:13: identities[0].policy: "modren" is not one of modern, intermediate; did you mean "modern"?',
        '6:13: limits.sessions: 0 is not a number of at least 1',
        '7:10: workers: "many" is not a whole number',
      ]);
    });
    it('a missing key is reported at the map that lacks it', () => {
      assert.deepEqual(lines('identities:\n  - directory: d\n'), ['2:5: identities[0].localid: required key is missing; it takes text']);
    });
    it('a mistake inside an alias is reported where the value is written', () => {
      assert.match(lines('identities:\n  - &x {localid: a, directory: d, policy: 5}\n  - *x\n')[0]!, /^2:43: identities\[0\]\.policy/);
    });
    it('the error carries each problem with line, column and field', () => {
      const { problems } = refusal('workers: 0\n');
      assert.deepEqual(problems.map(({ line, column, field }) => [line, column, field]), [[1, 10, 'workers']]);
    });
  });

  describe('YAML', () => {
    it('a syntax error has a line and a column', () => { assert.match(lines('workers: [1\n')[0]!, /^2:1: /); });
    it('a key given twice is refused at the second', () => { assert.deepEqual(lines('workers: 1\nworkers: 2\n'), ['2:1: this map has the key already; keep one of the two']); });
    it('keys given twice and other mistakes are told in the order of the file', () => {
      assert.deepEqual(lines('workers: 1\nworkers: 2\nlimits: {a: 1, a: 2}\naccess: !!x y\n').map((line) => line.slice(0, 5)), ['2:1: ', '3:16:', '4:9: ']);
    });
    it('a file of nothing but unknown keys is refused in seconds: each has its place, and a hundred are told', () => {
      const startedAt = process.cpuUsage().user;
      const keys = Array.from({ length: 150_000 }, (_, i) => `${(i + 46_656).toString(36)}:\n`);
      const { problems, message } = refusal(keys.join(''));
      assert.deepEqual([problems.length, problems.at(-1)!.line, problems.at(-1)!.field], [150_000, 150_000, keys.at(-1)!.slice(0, -2)]);
      assert.deepEqual([message.split('\n').length, message.split('\n').at(-1)], [101, `${folder}/pool.yaml: and 149900 more mistakes`]);
      // A check of each key against all others takes a minute.
      assert.ok(process.cpuUsage().user - startedAt < 15e6);
    }).timeout(30_000);
    for (const [what, text, place] of [
      ['lists', `access: ${'['.repeat(100)}`, '1:72'], ['maps', `access:\n  ${'{a: '.repeat(100)}`, '2:255'], ['lists in blocks', `access:\n  ${'- '.repeat(100)}a`, '2:129'],
      ['so many maps that composing them would end the process', '{a: '.repeat(5000) + '}'.repeat(5000), '1:257'],
    ] as const) {
      it(`${what} within each other are refused at the 65th`, () => { assert.match(lines(text)[0]!, new RegExp(`^${place}: this is more than 64 `)); });
    }
    it('a second document is refused', () => { assert.match(lines('workers: 1\n---\nworkers: 2\n')[0]!, /second document/); });
    it('a tag is refused', () => { assert.match(lines('workers: !!js/function "x"\n')[0]!, /^1:10: a tag/); });
    it('an alias bomb is refused and a modest use of aliases is not', () => {
      const bomb = ['a0: &a0 [x,x,x,x,x,x,x,x,x]', ...Array.from({ length: 8 }, (_, i) => `a${i + 1}: &a${i + 1} [${Array(9).fill(`*a${i}`).join(',')}]`)].join('\n');
      assert.match(refusal(bomb).message, /alias/i);
      assert.deepEqual(load('identities:\n  - {localid: a, directory: d, names: &n [a.example]}\n  - {localid: b, directory: d}\naccess:\n  - {uid: &u [0], identities: [a]}\n  - {uid: *u, identities: [b]}\n').access.map(({ uids }) => uids), [[0], [0]]);
    });
    it('a wildcard without quotes, which is an alias to YAML, is refused at its place, with the cure', () => {
      assert.deepEqual(lines('identities:\n  - {localid: a, directory: d, names: [a.example, *.example]}\n'), ['2:51: *.example is an alias of nothing; text that begins with * needs quotes: "*.example"']);
    });
    it('a list, a number and a text at the top are refused', () => {
      for (const text of ['- a\n', '5\n', 'hello\n']) assert.match(refusal(text).message, /is not a map of keys and values/);
    });
    it('keys of Object.prototype are unknown keys like others', () => {
      for (const key of ['constructor', '__proto__', 'toString']) assert.match(refusal(`${key}: {a: 1}\n`).message, /unknown key/);
    });
    it('text that is no UTF-8 is refused', () => { assert.match(refusal(Buffer.from([0x77, 0xff, 0xfe])).message, /is not UTF-8/); });
    it('an empty file means every default, without the development identity', () => {
      const config = load('');
      assert.equal(config.development, false);
      assert.deepEqual(config.identities, []);
    });
  });

  describe('the file', () => {
    it('one that does not exist is named', () => {
      assert.throws(() => loadConfig(path.join(folder, 'none.yaml'), {}, host), { code: 'CONFIG_BAD', message: /none\.yaml: the file does not exist.*ENOENT/ });
    });
    it('a folder and a device are refused', () => {
      for (const file of [folder, '/dev/null']) assert.throws(() => loadConfig(file, {}, host), { code: 'CONFIG_BAD', message: /not a regular file/ });
    });
    it('one of 1 MiB is read and one octet more is refused', () => {
      const text = Buffer.from(`workers: 2\n#${'x'.repeat(maxConfigOctets)}`);
      assert.equal(load(text.subarray(0, maxConfigOctets)).workers, 2);
      assert.match(refusal(text.subarray(0, maxConfigOctets + 1)).message, /1048577 octets; .* at most 1048576/);
    });
    it('one that others can write is refused, and one that others can read is not', () => {
      const file = write('workers: 2\n');
      chmodSync(file, 0o646);
      assert.throws(() => loadConfig(file, {}, host), { code: 'CONFIG_BAD', message: /mode 0646.*chmod go-w/ });
      chmodSync(file, 0o644);
      assert.equal(loadConfig(file, {}, host).workers, 2);
    });
    it('relative paths are relative to the folder of the file, through a relative name too', () => {
      write('socket: {path: s}\nidentities: [{localid: a, certificate: c.pem, key: k.pem, trust: t.pem}]\n');
      const config = loadConfig('pool.yaml', {}, { ...host, cwd: folder });
      assert.equal(config.socket.path, path.join(folder, 's'));
      assert.deepEqual(config.identities[0]?.source, { kind: 'files', certificate: path.join(folder, 'c.pem'), key: path.join(folder, 'k.pem'), trust: path.join(folder, 't.pem') });
    });
    it('the example that ships loads', () => {
      const example = fileURLToPath(new URL('../../../examples/tlspool.yaml', import.meta.url));
      const config = loadConfig(example, {}, host);
      assert.ok(config.identities.length > 0 && config.access.length > 0);
    });
  });

  describe('limits of values', () => {
    const cases: [key: string, accepted: readonly number[], refused: readonly number[]][] = [
      ['workers', [1, 256], [0, 257, -1, 1.5]], ['drainMs', [0, 86_400_000], [-1, 86_400_001]],
      ['limits.sessions', [1, 1_000_000], [0, 1_000_001]], ['limits.sessionsPerClient', [1, 1_000_000], [0, 1_000_001]],
      ['limits.handshakes', [1, 100_000], [0, 100_001]], ['limits.handshakeMs', [100, 3_600_000], [99, 3_600_001]],
      ['limits.messageOctets', [4096, 131_072], [4095, 131_073]], ['limits.clients', [1, 100_000], [0, 100_001]],
      ['limits.listenersPerClient', [1, 10_000], [0, 10_001]], ['limits.requestsPerClient', [1, 10_000], [0, 10_001]],
      ['limits.lingerMs', [0, 600_000], [-1, 600_001]], ['limits.queuedConnections', [1, 100_000], [0, 100_001]],
    ];
    for (const [key, accepted, refused] of cases) {
      const [parent, child] = key.split('.') as [string, string | undefined];
      const yaml = (value: number) => (child === undefined ? `${parent}: ${value}\n` : `${parent}: {${child}: ${value}}\n`);
      it(`${key} takes ${accepted.join(' and ')} and refuses ${refused.join(', ')}`, () => {
        for (const value of accepted) {
          const config = load(yaml(value)) as unknown as Record<string, unknown>;
          assert.equal(child === undefined ? config[parent] : (config[parent] as Record<string, unknown>)[child], value);
        }
        for (const value of refused) assert.equal(refusal(yaml(value)).problems[0]?.field, key);
      });
    }
    it('a message that no packet could carry is refused in octets, with the reason', () => {
      assert.match(refusal('limits: {messageOctets: 1048576}\n').message, /limits\.messageOctets: 1048576 is not a number of octets from 4096 to 131072, which is what one packet of the pool socket can carry/);
    });
    it('a permission means the same in each octal spelling', () => {
      for (const spelling of ['0660', '0o660', '"0660"', '660']) assert.equal(load(`socket: {mode: ${spelling}}\n`).socket.mode, 0o660, spelling);
      assert.equal(load('socket: {mode: 0777}\n').socket.mode, 0o777);
      for (const spelling of ['0680', '0060', '01777', 'rw', '0x1b0', '[6]']) assert.equal(refusal(`socket: {mode: ${spelling}}\n`).problems[0]?.field, 'socket.mode', spelling);
    });
    it('a ticket lives from a minute to a week', () => {
      const lifetime = (value: string) => `identities: [{localid: a, directory: d, ticketLifetime: ${value}}]\n`;
      for (const [value, seconds] of [['60s', 60], ['1m', 60], ['1h', 3600], ['7d', 604_800]] as const) assert.equal(load(lifetime(value)).identities[0]?.ticketLifetimeS, seconds);
      for (const value of ['59s', '8d', '604801s', '3600', '1 h', '-1h', '1y']) assert.equal(refusal(lifetime(value)).problems[0]?.field, 'identities[0].ticketLifetime', value);
    });
    it('a socket path of 107 octets is taken and one of 108 is refused', () => {
      const path107 = `/${'s'.repeat(106)}`;
      assert.equal(load(`socket: {path: ${path107}}\n`).socket.path, path107);
      assert.match(refusal(`socket: {path: ${path107}s}\n`).message, /yaml:1:16: socket\.path: .* has 108 octets/);
    });
    it('a localid of 255 octets is taken, one of 256 and names that are no folder names are refused', () => {
      const yaml = (localid: string) => `identities: [{localid: ${JSON.stringify(localid)}, directory: d}]\n`;
      for (const localid of ['a'.repeat(255), 'Bücher', 'a b', '*']) assert.equal(load(yaml(localid)).identities[0]?.localid, localid);
      for (const localid of ['', 'a'.repeat(256), 'ü'.repeat(128), '../x', '.hidden', 'a\nb', 'a\0b']) assert.equal(refusal(yaml(localid)).problems[0]?.field, 'identities[0].localid', localid);
    });
    it('server names are put into the form of SNI, and what is no name is refused', () => {
      const yaml = (name: string) => `identities: [{localid: a, directory: d, names: [${JSON.stringify(name)}]}]\n`;
      for (const [name, expected] of [['WWW.Example.ORG.', 'www.example.org'], ['*.Example.org', '*.example.org'], ['bücher.example', 'xn--bcher-kva.example'], ['localhost', 'localhost'], [`${'a'.repeat(63)}.x`, `${'a'.repeat(63)}.x`], [`${'a.'.repeat(126)}b.`, `${'a.'.repeat(126)}b`]] as const) {
        assert.deepEqual(load(yaml(name)).identities[0]?.names, [expected]);
      }
      for (const name of ['', '*', 'a..b', '*.*.x', 'a.*.x', '127.0.0.1', '::1', 'a b', `${'a'.repeat(64)}.x`, '-a.x', `${'a.'.repeat(127)}b`]) assert.equal(refusal(yaml(name)).problems[0]?.field, 'identities[0].names[0]', name);
    });
  });

  describe('keys that depend on each other', () => {
    const cases: [title: string, yaml: string, expected: RegExp][] = [
      ['a localid used twice', 'identities: [{localid: a, directory: d}, {localid: a, directory: e}]\n', /identities\[1\]\.localid: "a" is the localid of identities\[0\] already/],
      ['two defaults', 'identities: [{localid: a, directory: d, default: true}, {localid: b, directory: e, default: true}]\n', /identities\[1\]\.default: identities\[0\] is the default already/],
      ['a certificate without key', 'identities: [{localid: a, certificate: d}]\n', /has a certificate without key/],
      ['a key without certificate', 'identities: [{localid: a, key: d}]\n', /has a key without certificate/],
      ['a folder and files', 'identities: [{localid: a, directory: d, certificate: c, key: k}]\n', /keep either directory/],
      ['trust beside a folder of identitiesDirectory', 'identitiesDirectory: d\nidentities: [{localid: a, trust: t}]\n', /roots are in ca\.crt/],
      ['no place for credentials', 'identities: [{localid: a}]\n', /says nowhere where its credentials are/],
      ['a rule for nobody', 'access: [{identities: [a]}]\n', /access\[0\]: matches nobody/],
    ];
    for (const [title, yaml, expected] of cases) it(`${title} is refused`, () => { assert.match(refusal(yaml).message, expected); });
    it('an identity without a place of its own is the sub-folder of identitiesDirectory', () => {
      assert.deepEqual(load('identitiesDirectory: /i\nidentities: [{localid: a, policy: modern}]\n').identities[0]?.source, { kind: 'directory', directory: '/i/a' });
    });
    it('one default identity is taken', () => { assert.equal(load('identities: [{localid: a, directory: d, default: true}]\n').identities[0]?.isDefault, true); });
  });

  describe('access rules', () => {
    it('names of users and groups become numbers; a rule grants what it says and nothing else', () => {
      assert.deepEqual(load('access:\n  - {uid: root, gid: [0, 5], unit: "web@*.service", identities: ["a*"], roles: [server], backend: true}\n  - {uid: 7}\n').access, [
        { uids: [0], gids: [0, 5], units: ['web@*.service'], identities: ['a*'], permissions: ['server', 'backend'] },
        { uids: [7], identities: [], permissions: ['server', 'client'] },
      ]);
    });
    it('users that do not exist and numbers out of range are refused, the highest number is not', () => {
      for (const uid of ['no-such-user-here', '4294967295', '-1', '1.5', '"a:b"', 'true']) assert.equal(refusal(`access: [{uid: ${uid}}]\n`).problems[0]?.field, 'access[0].uid[0]', uid);
      assert.deepEqual(load('access: [{uid: 4294967294}]\n').access[0]?.uids, [4_294_967_294]);
    });
    it('without rules the group tlspool may use identities, without backends and without the operator\'s operations', () => {
      assert.deepEqual(load('').access, [{ gids: [77], identities: ['*'], permissions: ['server', 'client'] }]);
    });
    it('rules replace that default, and an empty list leaves nobody but root and the pool itself', () => { assert.deepEqual(load('access: []\n').access, []); });
  });

  describe('defaults and overrides', () => {
    const { tlspoolGid: _gid, systemRoots: _roots, ...bare } = host;
    it('a user\'s pool lives in the XDG folders', () => {
      const config = loadConfig(undefined, {}, host);
      assert.deepEqual([config.socket.path, config.state, config.development], ['/run/user/1000/tlspool/pool.sock', '/home/u/.local/state/tlspool', true]);
      assert.equal(loadConfig(undefined, {}, { ...host, env: { XDG_STATE_HOME: '/st' } }).socket.path, '/st/tlspool/pool.sock');
    });
    it('an XDG folder that is not absolute is ignored', () => {
      assert.equal(loadConfig(undefined, {}, { ...host, env: { XDG_STATE_HOME: 'st', XDG_RUNTIME_DIR: 'rt' } }).socket.path, '/home/u/.local/state/tlspool/pool.sock');
    });
    it('root\'s pool lives in /run and /var/lib, its socket belongs to the group tlspool', () => {
      const config = loadConfig(undefined, {}, { ...host, uid: 0 });
      assert.deepEqual([config.socket, config.state], [{ path: '/run/tlspool/pool.sock', mode: 0o660, gid: 77 }, '/var/lib/tlspool']);
    });
    it('a host without the group and without a trust store gets neither', () => {
      const config = loadConfig(undefined, {}, { ...bare, uid: 0 });
      assert.deepEqual([config.access, config.trust.roots, 'gid' in config.socket], [[], [], false]);
    });
    it('the command line wins over the file', () => {
      const config = loadConfig(write('socket: {path: /a}\nstate: /b\n'), { socket: 'c', state: 'd' }, host);
      assert.deepEqual([config.socket.path, config.state], ['/c', '/d']);
    });
  });

  describe('the development default', () => {
    it('makes an authority and the identity localhost for the pool alone, and keeps them the next time', async () => {
      const state = path.join(folder, 'state');
      const config = loadConfig(undefined, { state });
      const first = await prepareState(config);
      assert.equal(first.issued, true);
      const modes = ['', 'ca', 'ca/ca.key', 'identities/localhost', 'identities/localhost/tls.key'].map((name) => statSync(path.join(state, name)).mode & 0o777);
      assert.deepEqual(modes, [0o700, 0o700, 0o600, 0o700, 0o600]);
      const before = readFileSync(path.join(state, 'identities/localhost/tls.crt'), 'utf8');
      assert.deepEqual(await prepareState(config), { caFile: first.caFile, issued: false });
      assert.equal(readFileSync(path.join(state, 'identities/localhost/tls.crt'), 'utf8'), before);
    });
    it('a state folder that others can write to is refused', async () => {
      const state = path.join(folder, 'state');
      mkdirSync(state, { mode: 0o777 });
      chmodSync(state, 0o770);
      await assert.rejects(prepareState(loadConfig(undefined, { state })), { code: 'CONFIG_BAD', message: /chmod 0700/ });
    });
    it('a configuration is followed through a symbolic link', () => {
      const link = path.join(folder, 'link.yaml');
      write('workers: 2\n');
      symlinkSync('pool.yaml', link);
      assert.equal(loadConfig(link, {}, host).workers, 2);
    });
  });
});
