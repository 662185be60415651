// First inputs of the fuzzers. Each is a script in the language of its harness (test/fuzz/native/fuzz_*.cc).
import { createHash } from 'node:crypto';
import tls from 'node:tls';
import { Duplex } from 'node:stream';

/** Octets that a client of Node's sends first. */
function clientHello(options) {
  const hello = [];
  const wire = new Duplex({ read() {}, write(chunk, _encoding, done) { hello.push(chunk); done(); } });
  const client = tls.connect({ socket: wire, rejectUnauthorized: false, ...options });
  client.on('error', () => {});
  // The flight is written while connect() runs its first tick.
  return new Promise((resolve) => setImmediate(() => { client.destroy(); resolve(Buffer.concat(hello)); }));
}

const hellos = await Promise.all([
  {}, { servername: 'server.test' }, { servername: 'a.wild.test', ALPNProtocols: ['h2', 'http/1.1'] }, { maxVersion: 'TLSv1.2', servername: 'unknown.test' },
].map((options) => clientHello(options)));
if (hellos.some((hello) => hello.length < 100)) throw new Error('Node sent no ClientHello');

/** Chunks of a raw peer: a length octet (255: two more say the length), then the octets. */
const chunks = (octets, size) => Buffer.concat(Array.from({ length: Math.ceil(octets.length / size) }, (_, index) => {
  const part = octets.subarray(index * size, (index + 1) * size);
  return Buffer.concat([part.length < 255 ? Buffer.from([part.length]) : Buffer.from([255, part.length >> 8, part.length & 255]), part]);
}));

/** Octets without a pattern, the same in each run. */
const mixed = (index, length) => createHash('shake256', { outputLength: length }).update(String(index)).digest();

const spread = (count, make) => Array.from({ length: count }, (_, index) => Buffer.from(make(index)));

export const seeds = {
  // Three octets of settings; then flights of a live peer (an octet below 160 changes nothing) or a raw peer's chunks.
  handshake: () => [
    ...hellos.flatMap((hello) => [0x00, 0x04, 0x08].flatMap((settings) => [1000, 60].map((size) => Buffer.concat([Buffer.from([settings, 0x41, 0]), chunks(hello, size)])))),
    ...spread(256, (index) => [1 | index, index * 37 & 255, index * 101 & 255]),
    ...spread(32, (index) => [1 | index << 1, 0, 2, 0, ...(index % 2 === 0 ? [200, 0, index * 7, 1] : [0, 230, 0, index * 5])]),
  ],
  // A setting octet, then operations with their arguments.
  records: () => [
    ...spread(48, (index) => [index & 255, ...mixed(index, 24).map((octet) => octet & (index < 24 ? 0x0f : 0xff))]),
    ...spread(16, (index) => [index * 8 & 255, 0, 17, 61, 16, 1, 17, 8, 255, 9, 255, 10, 7, 16, 1, 4, 3, 60, 255, 61, 255, 5, 1, 11, 1]),
  ],
  models: () => spread(16, (index) => [index, ...mixed(index, 64)]),
};
