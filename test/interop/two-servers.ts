/** The same octets to the pool and to OpenSSL's own server (node:tls), and what came back from each, in terms that can be compared. */
import { constants } from 'node:crypto';
import { readFileSync } from 'node:fs';
import net from 'node:net';
import tls from 'node:tls';
import { acceptLoop, contentType, expectBaseline, handshakeType, parseRecords, RawTcp, startPool, until } from '../support/index.js';
import type { Baseline, Served, TestPool } from '../support/index.js';

/** Mozilla's intermediate suites with ECDHE, as the pool's preset has them. */
const ciphers = [
  'ECDHE-ECDSA-AES128-GCM-SHA256', 'ECDHE-RSA-AES128-GCM-SHA256', 'ECDHE-ECDSA-AES256-GCM-SHA384', 'ECDHE-RSA-AES256-GCM-SHA384',
  'ECDHE-ECDSA-CHACHA20-POLY1305', 'ECDHE-RSA-CHACHA20-POLY1305',
];
const suites13 = ['TLS_AES_128_GCM_SHA256', 'TLS_AES_256_GCM_SHA384', 'TLS_CHACHA20_POLY1305_SHA256'];

export interface TwoServers {
  readonly pool: TestPool;
  /** Port of an application behind the pool, which reads everything and closes when the peer does. */
  readonly poolPort: number;
  /** Port of node:tls with the same certificate and policy. */
  readonly openSslPort: number;
  readonly before: Baseline;
  /** Fails when the pool leaked anything, then stops both. */
  stop(): Promise<void>;
}

export async function startTwoServers(): Promise<TwoServers> {
  const pool = await startPool({ identities: [{ localid: 'localhost', policy: 'intermediate', default: true }], config: { log: { level: 'error' } } });
  const served: Served = await acceptLoop(pool, (socket) => {
    socket.on('error', () => undefined);
    socket.resume();
  });
  const reference = await referenceServer(pool);
  const before = pool.baseline();
  return {
    pool, poolPort: served.port, openSslPort: (reference.address() as net.AddressInfo).port, before,
    stop: async () => {
      await expectBaseline(pool, before);
      await served.close();
      reference.close();
      await pool.stop();
    },
  };
}

async function referenceServer(pool: TestPool): Promise<tls.Server> {
  const folder = pool.identityDir('localhost');
  const server = tls.createServer({
    cert: readFileSync(`${folder}/tls.crt`), key: readFileSync(`${folder}/tls.key`), minVersion: 'TLSv1.2', maxVersion: 'TLSv1.3',
    ciphers: [...suites13, ...ciphers].join(':'), ecdhCurve: 'X25519:P-256:P-384', honorCipherOrder: true,
    // A client that puts ChaCha20 first has no AES hardware: both servers honour that.
    secureOptions: constants.SSL_OP_PRIORITIZE_CHACHA,
  }, (socket) => {
    // Node reports an error after the handshake and leaves the closing to the application.
    socket.on('error', () => { socket.destroy(); });
    socket.resume();
  });
  server.on('tlsClientError', (_error, socket) => { socket.destroy(); });
  await new Promise<void>((resolve) => { server.listen(0, '127.0.0.1', resolve); });
  return server;
}

export interface Outcome {
  /** Alerts in the clear, as `level:description`. */
  readonly alerts: readonly string[];
  /** The first handshake message that came, with the cipher that it names: `2/1301`. */
  readonly answered: string;
  /** Octets of the first encrypted record after a plain one, when it has the size of an alert in TLS 1.3. */
  readonly sealedAlert: boolean;
  /** Milliseconds from the last octet received to the end of the connection. */
  readonly closedAfterMs: number;
}

/**
 * Sends a flight. `finish`: sends FIN too, so that a server that would wait for more ends. Without it the server has to end by
 * itself; the call fails when it does not.
 */
export async function outcome(port: number, flight: readonly Buffer[], finish: boolean): Promise<Outcome> {
  const tcp = await RawTcp.connect(port);
  try {
    for (const octets of flight) tcp.send(octets);
    if (finish) tcp.finish();
    await tcp.ended();
    return describe(tcp);
  } finally {
    tcp.close();
  }
}

function describe(tcp: RawTcp): Outcome {
  const records = parseRecords(tcp.received);
  const first = records.find(({ type }) => type === contentType.handshake);
  return {
    alerts: records.filter(({ type }) => type === contentType.alert).map(({ body }) => `${String(body[0])}:${String(body[1])}`),
    answered: first === undefined ? '' : helloName(first.body),
    sealedAlert: records.some(({ type, body }) => type === contentType.applicationData && body.length === 19),
    closedAfterMs: tcp.endedAt - tcp.lastOctetAt,
  };
}

function helloName(message: Buffer): string {
  if (message[0] !== handshakeType.serverHello) return String(message[0]);
  const at = 4 + 2 + 32;
  const suite = at + 1 + (message[at] ?? 0);
  return `2/${message.subarray(suite, suite + 2).toString('hex')}`;
}

/** The handshake message that the openssl command sends first, caught by a listener that answers nothing. */
export async function captureHello(start: (port: number) => { kill(signal: NodeJS.Signals): void }): Promise<Buffer> {
  const server = net.createServer();
  await new Promise<void>((resolve) => { server.listen(0, '127.0.0.1', resolve); });
  let received = Buffer.alloc(0);
  server.on('connection', (socket) => {
    socket.on('error', () => undefined);
    socket.on('data', (chunk: Buffer) => { received = Buffer.concat([received, chunk]); });
  });
  const client = start((server.address() as net.AddressInfo).port);
  try {
    const hello = await until(() => parseRecords(received)[0], { what: 'a ClientHello' });
    return hello.body;
  } finally {
    client.kill('SIGKILL');
    server.close();
  }
}
