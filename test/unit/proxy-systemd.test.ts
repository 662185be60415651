/** Sockets passed by systemd: sd_listen_fds_with_names(3). */
import assert from 'node:assert/strict';
import { openSync, readFileSync, unlinkSync } from 'node:fs';
import path from 'node:path';
import { sockets } from 'libtlspool/native';
import type { BorrowedFd, OwnedFd } from 'libtlspool/native';
import { adopt, parseListenFds, takeSystemdSockets } from 'tlspool-proxy/dist/systemd.js';
import { tempFolder } from '../support/cleanup.js';
import { fdCount } from '../support/process-info.js';

const pid = 1234;
const parse = (env: Record<string, string>) => parseListenFds({ LISTEN_PID: String(pid), ...env }, pid);
/** FD_CLOEXEC, as the kernel shows it (02000000). */
const isCloexec = (fd: number): boolean => (Number.parseInt(/^flags:\s*(\d+)$/mu.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))?.[1] ?? '', 8) & 0o2000000) !== 0;
const listening = (): OwnedFd => sockets.tcpListen({ host: '127.0.0.1', port: 0 });

describe('sockets passed by systemd: the variables', () => {
  it('descriptors begin with 3 and have the names of LISTEN_FDNAMES, in order', () => {
    assert.deepEqual(parse({ LISTEN_FDS: '2', LISTEN_FDNAMES: 'imap:smtp' }), [{ fd: 3, name: 'imap' }, { fd: 4, name: 'smtp' }]);
  });
  it('one without names is called unknown, as systemd has it', () => {
    assert.deepEqual(parse({ LISTEN_FDS: '1' }), [{ fd: 3, name: 'unknown' }]);
  });
  it('no variables, none of descriptors, and those meant for another process are nothing', () => {
    assert.deepEqual(parseListenFds({}, pid), []);
    assert.deepEqual(parseListenFds({ LISTEN_FDS: '1' }, pid), []);
    assert.deepEqual(parse({ LISTEN_FDS: '0', LISTEN_FDNAMES: '' }), []);
    assert.deepEqual(parseListenFds({ LISTEN_FDS: '1', LISTEN_PID: '1235' }, pid), []);
    assert.deepEqual(parseListenFds({ LISTEN_FDS: 'x', LISTEN_PID: '1235' }, pid), []);
  });
  it('numbers that make no sense are refused, and 1024 is taken', () => {
    for (const count of ['', 'x', '-1', '1.5', '1025', '99999999']) assert.throws(() => parse({ LISTEN_FDS: count }), { code: 'CONFIG_BAD', message: /LISTEN_FDS is/ });
    const names = Array.from({ length: 1024 }, (_, index) => `n${index}`).join(':');
    assert.equal(parse({ LISTEN_FDS: '1024', LISTEN_FDNAMES: names }).at(-1)?.fd, 1026);
  });
  it('too few and too many names are refused', () => {
    for (const names of ['a', 'a:b:c', '']) assert.throws(() => parse({ LISTEN_FDS: '2', LISTEN_FDNAMES: names }), { code: 'CONFIG_BAD', message: /names for LISTEN_FDS=2/ });
  });
  it('two sockets of one name are refused, because a configuration could not tell them apart', () => {
    assert.throws(() => parse({ LISTEN_FDS: '2', LISTEN_FDNAMES: 'a:a' }), { code: 'CONFIG_BAD', message: /have the name a; give each .* FileDescriptorName=/ });
    assert.throws(() => parse({ LISTEN_FDS: '2' }), { code: 'CONFIG_BAD', message: /have the name unknown/ });
  });
  it('they are gone afterwards, whomever they were meant for, so that no program takes them for its own', () => {
    const env = { LISTEN_FDS: '1', LISTEN_PID: '1', LISTEN_FDNAMES: 'x', OTHER: 'y' };
    assert.equal(takeSystemdSockets(env).size, 0);
    assert.deepEqual(env, { OTHER: 'y' });
  });
});

describe('sockets passed by systemd: the descriptors', () => {
  const opened: number[] = [];
  const track = <Fd extends number>(fd: Fd): Fd => { opened.push(fd); return fd; };
  afterEach(() => { for (const fd of opened.splice(0)) sockets.close(fd as OwnedFd); });

  it('TCP and UNIX listening sockets are taken over, close on exec, and the descriptors they came on are closed', () => {
    const place = path.join(tempFolder(), 's');
    const before = fdCount(process.pid);
    const tcp = listening();
    const unix = sockets.unixListen({ path: place, kind: 'stream' });
    const { local } = sockets.socketInfo(tcp);
    const owned = adopt([{ fd: tcp, name: 'a' }, { fd: unix, name: 'b' }]);
    assert.deepEqual([...owned.keys()], ['a', 'b']);
    assert.equal(fdCount(process.pid), before + 2);
    const [a, b] = [...owned.values()];
    assert.deepEqual(sockets.socketInfo(a as BorrowedFd).local, local);
    assert.equal(sockets.socketInfo(b as BorrowedFd).domain, 'unix');
    for (const fd of owned.values()) {
      assert.equal(isCloexec(fd), true);
      sockets.close(fd);
    }
    assert.equal(fdCount(process.pid), before);
    unlinkSync(place);
  });
  it('a descriptor that is no listening stream socket is refused, and none is closed: what follows a wrong number is not ours', () => {
    const good = track(listening());
    const place = path.join(tempFolder(), 's');
    const wrong: [fd: number, text: RegExp][] = [
      [track(openSync('/dev/null', 'r')), /is no socket/],
      [track(sockets.unixListen({ path: place, kind: 'seqpacket' })), /is a unix seqpacket socket; it must be a listening TCP or UNIX stream socket/],
      [track(sockets.socketpair('stream')[0]), /that does not listen/],
      [9999, /is no socket/],
    ];
    for (const [fd, message] of wrong) {
      const before = fdCount(process.pid);
      assert.throws(() => adopt([{ fd: good, name: 'good' }, { fd, name: 'bad' }]), { code: 'CONFIG_BAD', message });
      assert.equal(fdCount(process.pid), before);
    }
    assert.equal(sockets.socketInfo(good).listening, true);
  });
});
