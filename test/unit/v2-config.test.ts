import assert from 'node:assert/strict';
import { existsSync, lstatSync, mkdirSync, readFileSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { TlsPoolError } from 'libtlspool/protocol';
import { sockets } from 'libtlspool/native';
import { openPoolSocket } from 'tlspool/dist/api/index.js';
import { loadConfig } from 'tlspool/dist/config/index.js';
import type { Config } from 'tlspool/dist/config/index.js';
import type { Surroundings } from 'tlspool/dist/config/defaults.js';
import { writePidFile } from 'tlspool/dist/v2/pidfile.js';
import { tempFolder } from '../support/cleanup.js';
import { countDescriptors } from '../support/native-fds.js';

const user: Surroundings = { uid: 1000, env: { XDG_RUNTIME_DIR: '/run/user/1000' }, home: '/home/u', cwd: '/', workers: 1 };
const root: Surroundings = { ...user, uid: 0, env: {}, tlspoolGid: 77 };

describe('V2 configuration', () => {
  countDescriptors();
  let folder: string;
  beforeEach(() => { folder = tempFolder(); });

  function load(text: string, host: Surroundings): Config {
    const file = path.join(folder, 'pool.yaml');
    writeFileSync(file, text, { mode: 0o600 });
    return loadConfig(file, {}, host);
  }
  const fails = (work: () => unknown, code: string, text: RegExp): void => {
    assert.throws(work, (error: unknown) => error instanceof TlsPoolError && error.code === code && text.test(error.message));
  };

  it('is off where nothing is said', () => {
    assert.equal(load('workers: 1\n', root).v2, undefined);
    assert.equal(loadConfig(undefined, {}, user).v2, undefined);
  });
  it('{} is the default place, for root and for others', () => {
    assert.deepEqual(load('v2: {}\n', root).v2, { socket: { path: '/run/tlspool/tlspool.sock', mode: 0o660, gid: 77 } });
    assert.deepEqual(load('v2: {}\n', user).v2, { socket: { path: '/run/user/1000/tlspool/tlspool.sock', mode: 0o660 } });
  });
  it('paths are relative to the file', () => {
    assert.deepEqual(load('v2: {socket: {path: v2.sock, mode: "0600", group: 5}, pidFile: pool.pid}\n', user).v2, {
      socket: { path: path.join(folder, 'v2.sock'), mode: 0o600, gid: 5 }, pidFile: path.join(folder, 'pool.pid'),
    });
  });
  it('a path that is too long is refused by its key; one octet less is not', () => {
    const long = (octets: number): string => `/${'x'.repeat(octets - 1)}`;
    fails(() => load(`v2: {socket: {path: ${long(108)}}}\n`, user), 'CONFIG_BAD', /:1:21: v2\.socket\.path: .*108 octets/u);
    assert.equal(load(`v2: {socket: {path: ${long(107)}}}\n`, user).v2?.socket.path.length, 107);
  });

  it('its socket is a stream, takes the place of one that nobody answers at, and leaves a living one alone', () => {
    const file = path.join(folder, 'v2.sock');
    sockets.close(sockets.unixListen({ path: file, kind: 'stream' }));
    const first = openPoolSocket({ path: file, mode: 0o600, kind: 'stream', key: 'v2.socket' });
    const client = sockets.unixConnect(file, 'stream');
    fails(() => openPoolSocket({ path: file, mode: 0o600, kind: 'stream', key: 'v2.socket' }), 'BAD_STATE', /v2\.socket\.path$/u);
    sockets.close(client);
    first.close();
    assert.ok(!existsSync(file));
    writeFileSync(file, '');
    fails(() => openPoolSocket({ path: file, mode: 0o600, kind: 'stream', key: 'v2.socket' }), 'CONFIG_BAD', /is no socket/u);
  });

  describe('the pid file', () => {
    it('has the number and a newline, and is removed', () => {
      const file = path.join(folder, 'pool.pid');
      writeFileSync(file, 'left over');
      const remove = writePidFile(file);
      assert.equal(readFileSync(file, 'utf8'), `${process.pid}\n`);
      assert.equal(lstatSync(file).mode & 0o777, 0o644);
      remove();
      assert.ok(!existsSync(file));
    });
    it('is not written through a link, and not removed when it is another process\'', () => {
      const file = path.join(folder, 'pool.pid');
      const victim = path.join(folder, 'victim');
      writeFileSync(victim, 'mine');
      symlinkSync(victim, file);
      const remove = writePidFile(file);
      assert.equal(readFileSync(victim, 'utf8'), 'mine');
      writeFileSync(file, '1\n');
      remove();
      assert.equal(readFileSync(file, 'utf8'), '1\n');
    });
    it('that cannot be written says which key to change', () => {
      mkdirSync(path.join(folder, 'pool.pid'));
      fails(() => writePidFile(path.join(folder, 'pool.pid')), 'SYSTEM', /v2\.pidFile$/u);
      fails(() => writePidFile(path.join(folder, 'none/pool.pid')), 'SYSTEM', /v2\.pidFile$/u);
      assert.deepEqual(readdirSync(folder), ['pool.pid'], 'nothing is left behind');
    });
  });
});
