/** What comes in plain text behind the request for TLS is never carried out: not one octet of it reaches a backend (CVE-2011-0411 and its many sisters). */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { listenForHandoff } from 'libtlspool';
import type { HandoffListener, PoolSocket } from 'libtlspool';
import { preambleNames, preambles } from 'libtlspool/preamble';
import type { PreambleName } from 'libtlspool/preamble';
import { octetsOf } from '../support/dialogue.js';
import type { Octets } from '../support/dialogue.js';
import { canned, goAheads, PlainClient, startPool, startTls, tempFolder, TestProxy, ToyBackend, until } from '../support/index.js';
import type { TestPool } from '../support/index.js';
import { clientHello } from '../support/preamble-scripts-binary.js';
import { preambleScripts } from '../support/preamble-scripts.js';

const join = (...parts: readonly Octets[]): Buffer => Buffer.concat(parts.map(octetsOf));

/** Protocols with something before TLS into which commands could be injected. */
const protocols = preambleNames.filter((name) => preambleScripts[name]?.server?.injection !== undefined);
/** In mysql the client does not wait: its ClientHello, or what is none, may be right behind its request, and only the pool reads it. */
const waits = (protocol: string): boolean => goAheads[protocol] !== undefined;
const scriptOf = (protocol: string) => preambleScripts[protocol]!.server!;

/** Octets that the kernel holds for the proxy, of the connections of these clients. */
function waitingOctets(clients: readonly PlainClient[]): number[] {
  const hex = (number = 0): string => `:${number.toString(16).toUpperCase().padStart(4, '0')}`;
  const lines = readFileSync('/proc/net/tcp', 'latin1').split('\n').map((line) => line.trim().split(/\s+/u));
  const queues = new Map(lines.map(([, local = '', remote = '', , both = '']) => [`${local.slice(-5)} ${remote.slice(-5)}`, Number.parseInt(both.split(':')[1] ?? '', 16)]));
  return clients.map(({ socket: { localPort, remotePort } }) => queues.get(`${hex(remotePort)} ${hex(localPort)}`) ?? Number.NaN);
}

describe('proxy: commands behind the request for TLS', function () {
  this.timeout(30_000);
  let pool: TestPool;
  let proxy: TestProxy;
  let listener: HandoffListener;
  let accepting: Promise<void>;
  const handed: PoolSocket[] = [];
  const backends = new Map<string, ToyBackend>();
  const at = (protocol: string) => ({ port: proxy.port(protocol), host: proxy.host(protocol), protocol });

  before(async () => {
    pool = await startPool();
    const file = path.join(tempFolder(), 'h.sock');
    listener = await listenForHandoff({ path: file, reattach: false });
    accepting = (async () => { for await (const socket of listener) handed.push(socket); })().catch(() => undefined);
    for (const protocol of protocols) if (preambles[protocol].server?.plainBackend === true) backends.set(protocol, await ToyBackend.listen(canned(octetsOf(scriptOf(protocol).backend?.learn ?? ''))));
    proxy = await TestProxy.start(pool, protocols.map((protocol) => ({
      name: protocol, protocol, hostname: 'mail.example.org', backendMs: 20_000, backend: backends.has(protocol) ? { connect: backends.get(protocol)!.address } : { fd: file },
    })));
  });
  after(async () => {
    await proxy.stop();
    await listener.close();
    await accepting;
    for (const backend of backends.values()) await backend.close();
    await pool.stop();
  });
  beforeEach(() => {
    for (const backend of backends.values()) backend.forget();
    for (const socket of handed.splice(0)) socket.destroy();
  });

  const greeted = async (protocol: string): Promise<PlainClient> => {
    const client = await PlainClient.connect(at(protocol).port, at(protocol).host);
    if (protocol === 'mysql') await client.when(({ received }) => received.length > 4, 'a greeting');
    return client;
  };

  /** The client was turned away, and the backend heard what the proxy itself asks, if anything. */
  async function refused(protocol: string, client: PlainClient): Promise<void> {
    await client.ended();
    client.close();
    const goAhead = goAheads[protocol];
    if (goAhead !== undefined) assert.doesNotMatch(client.text, goAhead);
    const { ended, code, protocol: version } = await proxy.recordOf(protocol, client.localPort);
    assert.equal(ended, 'refused');
    assert.match(code ?? 'none', waits(protocol) ? /^(?:EARLY_OCTETS|PREAMBLE)$/u : /^HANDSHAKE_FAILED$/u);
    assert.equal(version, undefined, 'there was no handshake');
    const asks = scriptOf(protocol).backend?.asks;
    for (const { text } of backends.get(protocol)?.connections ?? []) assert.equal(text, asks);
    assert.deepEqual(handed, []);
  }

  for (const protocol of protocols) {
    const { good, injection = '' } = scriptOf(protocol);
    it(`${protocol}: commands in the same segment`, async () => {
      const before = proxy.baseline();
      const client = await greeted(protocol);
      client.say(join(good, injection));
      await refused(protocol, client);
      await proxy.expectBaseline(before);
    });

    if (waits(protocol)) it(`${protocol}: a ClientHello before the go-ahead`, async () => {
      const client = await greeted(protocol);
      client.say(join(good, clientHello));
      await refused(protocol, client);
    });

    it(`${protocol}: without any of that TLS begins, and the backend hears what comes under it and nothing else`, async () => {
      const client = await startTls(at(protocol), { caFile: pool.caFile, ...(protocol === 'postgres' && { alpn: ['postgresql'] }) });
      client.say('under TLS');
      const backend = backends.get(protocol);
      if (backend === undefined) {
        const [socket] = await until(() => handed.length > 0 && handed, { what: 'the connection to be handed over' });
        assert.equal(String(await until(() => socket!.read() as Buffer | null ?? undefined, { what: 'octets' })), 'under TLS');
        socket!.destroy();
      } else {
        await until(() => backend.connections.some(({ text }) => text === 'under TLS'), { what: 'the backend to hear it' });
        const asks = scriptOf(protocol).backend?.asks;
        for (const { text } of backend.connections) assert(text === 'under TLS' || text === asks, JSON.stringify(text));
      }
      await client.finish();
    });
  }

  it('commands in a segment of their own, while the proxy waits for the pool: refused in each protocol, and clients that sent none are served', async () => {
    const waiting = protocols.filter(waits);
    const [bad, good] = [new Map<PreambleName, PlainClient>(), new Map<PreambleName, PlainClient>()];
    await proxy.settled();
    await pool.kill();
    for (const protocol of waiting) {
      bad.set(protocol, await greeted(protocol));
      good.set(protocol, await greeted(protocol));
    }
    const all = [...bad.values(), ...good.values()];
    for (const clients of [bad, good]) for (const [protocol, client] of clients) client.say(scriptOf(protocol).good);
    await until(() => waitingOctets(all).every((count) => count === 0), { what: 'the proxy to take the requests' });
    for (const [protocol, client] of bad) client.say(scriptOf(protocol).injection!);
    await until(() => waitingOctets([...bad.values()]).every((count) => count > 0), { what: 'the injections to be there' });
    await pool.restart();
    for (const [protocol, client] of bad) await refused(protocol, client);
    for (const [protocol, client] of good) {
      await client.hears(goAheads[protocol]!);
      const { socket } = await client.secure({ caFile: pool.caFile });
      socket.destroy();
    }
  });
});
