/** How the engine accepts: within its limits, with what options of TCP, and without taking the process's signals. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import net from 'node:net';
import { constants } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import type tls from 'node:tls';
import { isDeepStrictEqual } from 'node:util';
import { sockets } from 'libtlspool/native';
import { connectTls, makeCertificates, Rig } from './engine-support.js';
import type { Certificates, EventOf } from './engine-support.js';
import { run, until } from '../support/index.js';

/** Copies the sockets of a process (pidfd_getfd) and prints what was set on those that it accepted at one port and connected to another: TCP_NODELAY, SO_KEEPALIVE. */
const optionsOf = `
import ctypes, os, socket, sys
pid, port, backend = map(int, sys.argv[1:])
pidfd = os.pidfd_open(pid)
for entry in os.listdir(f'/proc/{pid}/fd'):
    fd = ctypes.CDLL(None).syscall(438, pidfd, int(entry), 0)
    if fd < 0: continue
    try: one = socket.socket(fileno=fd)
    except OSError: continue
    if one.family != socket.AF_INET or one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN): continue
    try: ports = one.getsockname()[1], one.getpeername()[1]
    except OSError: continue
    if port == ports[0] or backend == ports[1]: print('accepted' if port == ports[0] else 'connected', one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY), one.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
`;

describe('engine: accepting', () => {
  let certificates: Certificates;
  let rig: Rig;
  const open: net.Socket[] = [];
  before(() => { certificates = makeCertificates(); });
  afterEach(() => {
    for (const socket of open.splice(0)) socket.destroy();
    rig.close();
  });

  async function connected(port: number): Promise<{ client: tls.TLSSocket; event: EventOf<'established'> }> {
    const client = await connectTls(port, certificates.ca);
    open.push(client);
    return { client, event: await rig.event('established') };
  }
  const leave = async ({ client, event }: Awaited<ReturnType<typeof connected>>): Promise<void> => {
    client.destroy();
    sockets.close(event.plainfd as never);
    await rig.event('closed');
  };
  /** Milliseconds of CPU that this process, the engine's threads with it, takes while nothing has to happen. */
  async function restless(durationMs: number): Promise<number> {
    const before = process.cpuUsage();
    await sleep(durationMs);
    const { user, system } = process.cpuUsage(before);
    return (user + system) / 1000;
  }

  it('at the limit of sessions a connection waits in the queue, costs nothing meanwhile, and is served when one has left', async () => {
    rig = new Rig(certificates, { sessionsMax: 2 });
    const { port } = rig.listen(rig.selector());
    const [first, second] = [await connected(port), await connected(port)];
    let isThere = false;
    const third = connected(port).finally(() => { isThere = true; });
    const busy = await restless(500);
    assert.equal(isThere, false);
    assert.ok(busy < 250, `${String(busy)} ms of CPU in 500 ms`);
    await leave(first);
    for (const one of [second, await third]) await leave(one);
  });

  it('at the limit of handshakes, too: those that say nothing give way at their deadline', async () => {
    rig = new Rig(certificates, { handshakesMax: 1, handshakeMs: 700 });
    const { port } = rig.listen(rig.selector());
    const silent = net.connect(port, '127.0.0.1');
    open.push(silent);
    await once(silent, 'connect');
    const begin = performance.now();
    const next = connected(port);
    assert.equal((await rig.event('failed')).code, 'HANDSHAKE_TIMEOUT');
    const one = await next;
    assert.ok(performance.now() - begin > 400, 'it waited');
    await leave(one);
  });

  it('accepted sockets have TCP_NODELAY and SO_KEEPALIVE, those to backends TCP_NODELAY', async () => {
    rig = new Rig(certificates);
    const backend = sockets.tcpListen({ host: '127.0.0.1', port: 0 });
    const backendPort = sockets.socketInfo(backend).local?.port ?? 0;
    const { port } = rig.listen(rig.selector(), { backend: { host: '127.0.0.1', port: backendPort } });
    open.push(await connectTls(port, certificates.ca));
    await rig.event('established');
    const { stdout } = await run('python3', ['-c', optionsOf, String(process.pid), String(port), String(backendPort)], { env: { LD_PRELOAD: '' } });
    assert.deepEqual(stdout.trim().split('\n').toSorted(), ['accepted 1 1', 'connected 1 0']);
    sockets.close(backend);
    await rig.event('closed');
  });

  it("the threads leave the process's signals alone, but not their own faults", async () => {
    rig = new Rig(certificates, { workers: 2 });
    const wanted = { SIGHUP: true, SIGINT: true, SIGTERM: true, SIGCHLD: true, SIGUSR1: true, SIGSEGV: false, SIGBUS: false, SIGABRT: false };
    const blocked = (): Record<string, boolean>[] => readdirSync('/proc/self/task').map((task) => readFileSync(`/proc/self/task/${task}/status`, 'utf8'))
      .filter((status) => /^Name:\ttlspool-/mu.test(status))
      .map((status) => BigInt(`0x${/^SigBlk:\s*([0-9a-f]+)$/mu.exec(status)?.[1] ?? ''}`))
      .map((mask) => Object.fromEntries(Object.keys(wanted).map((name) => [name, (mask >> BigInt(constants.signals[name as keyof typeof wanted] - 1) & 1n) === 1n])));
    // A thread that has just been made blocks everything.
    await until(() => isDeepStrictEqual(blocked(), [wanted, wanted]), { what: 'the masks', context: () => JSON.stringify(blocked()) });
  });
});
