/** A pool with the largest messages there are. */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { connectPool } from 'libtlspool';
import { PoolWire, WireError, repoRoot, run, startPool } from '../support/index.js';
import type { TestPool } from '../support/index.js';

const octets = 131_072;

describe('limits.messageOctets at its maximum', function () {
  this.timeout(30_000);
  let pool: TestPool;
  before(async () => {
    pool = await startPool({ config: { limits: { messageOctets: octets } } });
    // Identities with so many names that two fit into a message of this size, and none into one of the usual size with another.
    const config = JSON.parse(readFileSync(pool.configFile, 'utf8')) as { identities: object[] };
    const names = (n: number): string[] => Array.from({ length: 256 }, (_, m) => `${`a${m}`.padEnd(60, 'x')}.${'y'.repeat(60)}.n${n}.example.org`);
    for (let n = 1; n <= 5; n += 1) config.identities.push({ localid: `n${n}`, directory: pool.identityDir('localhost'), names: names(n) });
    writeFileSync(pool.configFile, JSON.stringify(config));
    await pool.restart();
  });
  after(() => pool.stop());

  it('hello says so, and a message over 65,536 octets travels each way', () => {
    const wire = new PoolWire(pool.socket, { hello: false });
    assert.equal(wire.request('hello', { versions: [1], client: 'test' }).body['maxMessageOctets'], octets);
    const { identities, next } = wire.request('identities').body as { identities: { names: string[] }[]; next?: string };
    assert.ok(identities.flatMap((one) => one.names).join('').length > 65_536);
    assert.ok(next !== undefined, 'there are further pages');
    assert.throws(() => wire.request('ping', { payload: Buffer.alloc(100_000) }), (error) => error instanceof WireError && error.code === 'BAD_MESSAGE');
    wire.close();
  });

  it('one octet more is refused as too large', () => {
    const wire = new PoolWire(pool.socket);
    const fixed = (text: string): Buffer => Buffer.concat([Buffer.from([0x81, 0xa1, 0x61, 0xc6]), Buffer.from([0, 0, 0, 0]), Buffer.from(text)]);
    wire.sendRaw(Buffer.concat([fixed(''), Buffer.alloc(octets - fixed('').length + 1)]));
    assert.equal((wire.next()?.body as { code: string }).code, 'MESSAGE_TOO_LARGE');
    wire.close();
  });

  it('the command shows all identities with all their names', async () => {
    const { stdout } = await run(process.execPath, [path.join(repoRoot, 'daemon/bin/tlspool.js'), '--socket', pool.socket, '--json', 'identities']);
    const { identities } = JSON.parse(stdout) as { identities: { localid: string; names: string[] }[] };
    assert.deepEqual(identities.map(({ localid, names }) => [localid, names.length]), [['localhost', 1], ...[1, 2, 3, 4, 5].map((n) => [`n${n}`, 256])]);
  });

  it('the library works with it', async () => {
    const client = await connectPool({ path: pool.socket });
    const listener = await client.listen({ host: '127.0.0.1', port: 0, localid: 'localhost' });
    await listener.close();
    client.close();
  });
});
