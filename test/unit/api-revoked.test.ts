import assert from 'node:assert/strict';
import type { Published } from 'tlspool/dist/identity/index.js';
import type { Bench} from './api-support.js';
import { benchForEach, closed, established } from './api-support.js';

describe('sessions of old revisions', () => {
  let bench: Bench;
  benchForEach(() => bench, (made) => { bench = made; });

  /** The identity is published with this revision; none before it may live on. */
  function publish(revision: number): void {
    bench.store.list = () => [{ revision, settings: { localid: 'localhost', priorRevisions: 0 } } as Published];
    bench.store.published(['localhost']);
  }
  const revoked = (): unknown[] => bench.engine.named('close').map(([, session, how]) => [session, how]);

  it('are ended as revoked when a new one is published, each once, detached ones too, and their owner is told', async () => {
    const client = await bench.client();
    const first = await bench.startTls(client);
    bench.emit(established(first));
    const { ctlkey } = (await client.next()).body;
    const second = await bench.startTls(client);
    bench.emit(established(second));
    const detached = (await client.next()).body['ctlkey'];
    await client.request('detach', { ctlkey: detached });
    publish(1);
    assert.deepEqual(revoked(), []);
    publish(2);
    assert.deepEqual(revoked(), [[first, 'revoked'], [second, 'revoked']]);
    publish(3);
    assert.equal(revoked().length, 2);
    bench.emit(closed(first, { how: 'revoked' }), closed(second, { how: 'revoked' }));
    const { message, body } = await client.next();
    assert.deepEqual([message.op, body['ctlkey'], body['how']], ['closed', ctlkey, 'revoked']);
  });

  it('end too when their handshake began before the publication and ended after it; of the new revision they stay', async () => {
    const client = await bench.client();
    const [late, fresh] = [await bench.startTls(client), await bench.startTls(client)];
    publish(2);
    assert.deepEqual(revoked(), []);
    bench.emit(established(late, { revision: 1 }), established(fresh, { revision: 2 }));
    assert.deepEqual(revoked(), [[late, 'revoked']]);
    await client.next();
    await client.next();
    bench.emit(closed(late, { how: 'revoked' }));
    assert.equal((await client.next()).body['how'], 'revoked');
  });
});
