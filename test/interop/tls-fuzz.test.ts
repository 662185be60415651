import assert from 'node:assert/strict';
import { alertDescription, contentType, handshake, handshakeType, MiniTls, nodeConnect, parseClientHello, Random, sClient } from '../support/index.js';
import type { ClientHello } from '../support/index.js';
import { mutations } from './hello-mutations.js';
import type { Flight } from './hello-mutations.js';
import { captureHello, outcome, startTwoServers } from './two-servers.js';
import type { Outcome, TwoServers } from './two-servers.js';

/** Seeds per mutation and per kind of hello; more with TLSPOOL_FUZZ_SEEDS. */
const seeds = Number(process.env['TLSPOOL_FUZZ_SEEDS'] ?? 24);
const firstSeed = Number(process.env['TLSPOOL_FUZZ_FIRST_SEED'] ?? 1);
const inParallel = 16;
const closesWithinMs = 500;

interface Case { readonly mutation: string; readonly seed: number; readonly flight: Flight }

function* cases(hello: ClientHello): Generator<Case> {
  for (const [mutation, mutate] of Object.entries(mutations)) {
    for (let seed = firstSeed; seed < firstSeed + seeds; seed++) {
      yield { mutation, seed, flight: mutate(hello, new Random(seed)) };
    }
  }
}

const sayable = ({ alerts, answered, sealedAlert }: Outcome): string => JSON.stringify({ alerts, answered, sealedAlert });

/** The difference in words, or undefined when both servers did the same and ours closed in time. */
async function difference(servers: TwoServers, { flight }: Case): Promise<string | undefined> {
  const reference = await outcome(servers.openSslPort, flight, true);
  const pool = await outcome(servers.poolPort, flight, true);
  if (sayable(pool) !== sayable(reference)) return `pool ${sayable(pool)}, OpenSSL ${sayable(reference)}`;
  if (!pool.alerts.some((alert) => alert.startsWith('2:'))) return undefined;
  // Without a FIN from the client: after its own fatal alert the server has to end the connection by itself, at once.
  const alone = await outcome(servers.poolPort, flight, false);
  if (sayable(alone) !== sayable(pool)) return `the pool did ${sayable(alone)} without FIN and ${sayable(pool)} with it`;
  return alone.closedAfterMs <= closesWithinMs ? undefined : 'the pool closed late after its fatal alert';
}

/** Runs all cases; differences that look the same are told once, with the seeds that show them. */
async function compareAll(servers: TwoServers, list: Iterator<Case>): Promise<{ count: number; differences: string[] }> {
  const differences = new Map<string, number[]>();
  let count = 0;
  const worker = async (): Promise<void> => {
    for (let item = list.next(); item.done !== true; item = list.next()) {
      count++;
      const seen = await difference(servers, item.value).catch((error: unknown) => String(error));
      if (seen === undefined) continue;
      const key = `${item.value.mutation}: ${seen}`;
      differences.set(key, [...(differences.get(key) ?? []), item.value.seed]);
    }
  };
  await Promise.all(Array.from({ length: inParallel }, worker));
  return { count, differences: [...differences].map(([key, shownBy]) => `${key} (seeds ${shownBy.join(' ')})`) };
}

/** What a client can do wrong once it has keys; the alert comes back sealed and is opened here. */
const sealedFaults: Readonly<Record<string, { readonly when: 'before Finished' | 'after'; send(mini: MiniTls): void }>> = {
  'a Finished that does not verify': { when: 'before Finished', send: (mini) => { const bad = mini.finished(); bad[10] = (bad[10] ?? 0) ^ 1; mini.send(contentType.handshake, bad); } },
  'a Finished that is too short': { when: 'before Finished', send: (mini) => { mini.send(contentType.handshake, handshake(handshakeType.finished, mini.finished().subarray(4, 20))); } },
  'a Finished that is too long': { when: 'before Finished', send: (mini) => { mini.send(contentType.handshake, handshake(handshakeType.finished, Buffer.concat([mini.finished().subarray(4), Buffer.from([0])]))); } },
  'application data instead of Finished': { when: 'before Finished', send: (mini) => { mini.send(contentType.applicationData, Buffer.from('early')); } },
  'a KeyUpdate instead of Finished': { when: 'before Finished', send: (mini) => { mini.send(contentType.handshake, handshake(handshakeType.keyUpdate, Buffer.from([0]))); } },
  'a Certificate that nobody asked for': { when: 'before Finished', send: (mini) => { mini.send(contentType.handshake, handshake(11, Buffer.from([0, 0, 0, 0]))); } },
  'a KeyUpdate in the record of the Finished': { when: 'before Finished', send: (mini) => { mini.send(contentType.handshake, Buffer.concat([mini.finished(), handshake(handshakeType.keyUpdate, Buffer.from([0]))])); } },
  'a record that is not authentic': { when: 'after', send: (mini) => { const bad = mini.seal(contentType.applicationData, Buffer.from('x')); bad[7] = (bad[7] ?? 0) ^ 1; mini.tcp.send(bad); } },
  'a record too short to be sealed': { when: 'after', send: (mini) => { mini.tcp.send(Buffer.from([23, 3, 3, 0, 4, 1, 2, 3, 4])); } },
  'an empty record': { when: 'after', send: (mini) => { mini.tcp.send(Buffer.from([23, 3, 3, 0, 0])); } },
  'a sealed record without a content type': { when: 'after', send: (mini) => { mini.send(0, Buffer.alloc(8)); } },
  'a sealed record over the limit': { when: 'after', send: (mini) => { mini.send(contentType.applicationData, Buffer.alloc(16_385)); } },
  'a record header over the limit': { when: 'after', send: (mini) => { mini.tcp.send(Buffer.concat([Buffer.from([23, 3, 3, 0x41, 0x01]), Buffer.alloc(0x4101)])); } },
  'a sealed ChangeCipherSpec': { when: 'after', send: (mini) => { mini.send(contentType.changeCipherSpec, Buffer.from([1])); } },
  'a plain ChangeCipherSpec after the handshake': { when: 'after', send: (mini) => { mini.tcp.send(Buffer.from([20, 3, 3, 0, 1, 1])); } },
  'plain application data': { when: 'after', send: (mini) => { mini.tcp.send(Buffer.concat([Buffer.from([23, 3, 3, 0, 40]), Buffer.alloc(40)])); } },
  'a plain alert after the handshake': { when: 'after', send: (mini) => { mini.tcp.send(Buffer.from([21, 3, 3, 0, 2, 1, 0])); } },
  'a plain handshake record': { when: 'after', send: (mini) => { mini.tcp.send(Buffer.from([22, 3, 3, 0, 4, 1, 0, 0, 0])); } },
  'an unknown handshake message': { when: 'after', send: (mini) => { mini.send(contentType.handshake, handshake(99, Buffer.alloc(0))); } },
  'a second ClientHello': { when: 'after', send: (mini) => { mini.send(contentType.handshake, handshake(handshakeType.clientHello, Buffer.alloc(50))); } },
  'a session ticket from the client': { when: 'after', send: (mini) => { mini.send(contentType.handshake, handshake(4, Buffer.alloc(20))); } },
  'a KeyUpdate with a wrong value': { when: 'after', send: (mini) => { mini.send(contentType.handshake, handshake(handshakeType.keyUpdate, Buffer.from([2]))); } },
  'an empty KeyUpdate': { when: 'after', send: (mini) => { mini.send(contentType.handshake, handshake(handshakeType.keyUpdate, Buffer.alloc(0))); } },
  'a KeyUpdate with something behind it': { when: 'after', send: (mini) => { mini.send(contentType.handshake, Buffer.concat([handshake(handshakeType.keyUpdate, Buffer.from([0])), Buffer.from([24])])); } },
  'an empty sealed handshake record': { when: 'after', send: (mini) => { mini.send(contentType.handshake, Buffer.alloc(0)); } },
  'an empty sealed alert': { when: 'after', send: (mini) => { mini.send(contentType.alert, Buffer.alloc(0)); } },
  'an alert of three octets': { when: 'after', send: (mini) => { mini.send(contentType.alert, Buffer.from([1, 0, 0])); } },
  'a fatal alert': { when: 'after', send: (mini) => { mini.send(contentType.alert, Buffer.from([2, 80])); } },
  'a warning that TLS 1.3 does not know': { when: 'after', send: (mini) => { mini.send(contentType.alert, Buffer.from([1, 41])); } },
  'a handshake message split by application data': { when: 'after', send: (mini) => { mini.send(contentType.handshake, Buffer.from([handshakeType.keyUpdate, 0])); mini.send(contentType.applicationData, Buffer.from('x')); } },
};

async function sealedOutcome(port: number, fault: { readonly when: string; send(mini: MiniTls): void }): Promise<string> {
  const mini = fault.when === 'after' ? await MiniTls.connect(port) : await MiniTls.start(port);
  try {
    fault.send(mini);
    mini.tcp.finish();
    await mini.tcp.ended();
    // close_notify is the application's doing, not the judgement of the fault: node:tls sends it when its stream is ended.
    return JSON.stringify(mini.alerts.filter(({ description }) => description !== alertDescription.closeNotify));
  } finally {
    mini.close();
  }
}

describe('TLS faults: the pool does as OpenSSL\'s own server', function () {
  this.timeout(300_000);
  let servers: TwoServers;

  before(async () => { servers = await startTwoServers(); });
  after(async () => { await servers.stop(); });

  for (const [version, option] of [['TLS 1.3', '-tls1_3'], ['TLS 1.2', '-tls1_2'], ['TLS 1.2 or 1.3', '-no_ssl3']] as const) {
    it(`${version}: every mutation of openssl's ClientHello gets the same alert, and the connection is closed at once after a fatal one`, async () => {
      const caFile = servers.pool.caFile;
      const message = await captureHello((port) => sClient({ port, caFile }, [option, '-alpn', 'http/1.1', '-status']));
      const hello = parseClientHello(message);
      const { count, differences } = await compareAll(servers, cases(hello));
      assert.ok(count >= 1000, `only ${String(count)} cases ran`);
      assert.equal(differences.length, 0, `among ${String(count)} cases:\n${differences.join('\n')}`);
    });
  }

  for (const [name, fault] of Object.entries(sealedFaults)) {
    it(`TLS 1.3, ${fault.when === 'after' ? 'after the handshake' : 'before the client is finished'}: ${name} gets the same alert`, async () => {
      assert.equal(await sealedOutcome(servers.poolPort, fault), await sealedOutcome(servers.openSslPort, fault));
    });
  }

  it('the mini client that sends the faults is served when it does nothing wrong', async () => {
    for (const port of [servers.poolPort, servers.openSslPort]) {
      const mini = await MiniTls.connect(port);
      mini.send(contentType.applicationData, Buffer.from('hello'));
      mini.keyUpdate(false);
      mini.send(contentType.applicationData, Buffer.from('hello'), 100);
      mini.closeNotify();
      mini.tcp.finish();
      await mini.tcp.ended();
      assert.deepEqual(mini.alerts.filter(({ description }) => description !== alertDescription.closeNotify), []);
      mini.close();
    }
  });

  it('after all of that a well-behaved client is served', async () => {
    const socket = await nodeConnect({ port: servers.poolPort, caFile: servers.pool.caFile });
    assert.equal(socket.authorized, true);
    socket.end();
    await new Promise((resolve) => { socket.once('close', resolve); });
  });
});
