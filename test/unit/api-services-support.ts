/** What tests of services share: identities to choose from, and the client's side of callbacks. */
import assert from 'node:assert/strict';
import type { Message } from 'libtlspool/protocol';
import { Bench, openDescriptors } from './api-support.js';
import type { TestClient } from './api-support.js';
import { until } from '../support/wait.js';

export const summary = (localid: string, rest: object = {}) => ({
  localid, names: [], revision: 1, source: `/${localid}`, policy: 'intermediate' as const, clientAuth: 'none' as const, isDefault: false, trustRoots: 0,
  certificates: [{ subject: `CN=${localid}`, issuer: 'CN=ca', serial: '1', keyType: 'EC P-256', fingerprint: '00', notBeforeMs: 0, notAfterMs: 4_000_000_000_000 }], ...rest,
});
export const outgoing = { role: 'client', remoteid: 'www.example.org' } as const;

export interface Callback { readonly id: number; readonly op: string; readonly body: Record<string, unknown> }

/** Makes benches, and sees to it that no descriptor is left of any of them. */
export class Benches {
  readonly #fds = openDescriptors();
  current = new Bench();

  /** The one before is closed. */
  make(...args: ConstructorParameters<typeof Bench>): Bench {
    this.current.close();
    this.current = new Bench(...args);
    return this.current;
  }

  async close(): Promise<void> {
    this.current.close();
    await until(() => openDescriptors() === this.#fds, { what: 'all descriptors to be closed', context: () => `${String(this.#fds)} before, ${String(openDescriptors())} after` });
  }
}

/** Gives the store identities that can be used. */
export function publish(bench: Bench, ...localids: string[]): void {
  bench.store.summaries = localids.map((localid) => summary(localid));
  for (const localid of localids) bench.store.known.add(localid);
}

/** The next message is the refusal of this request: its code and text. */
export async function refusedWith(client: TestClient, id: number): Promise<string> {
  const { message, body } = await client.next();
  assert.deepEqual([message.type, 'id' in message ? message.id : undefined], ['error', id]);
  return `${String(body['code'])}: ${String(body['text'])}`;
}

/** The body of the reply, or the code of the refusal. */
export async function reply(client: TestClient, op: 'register' | 'unregister' | 'forget', body: object): Promise<unknown> {
  const got = await client.request(op, body);
  return got.message.type === 'error' ? got.body['code'] : got.body;
}

/** The next message is this callback. */
export async function callback(client: TestClient, op: string): Promise<Callback> {
  const { message, body } = await client.next();
  assert.deepEqual([message.type, message.op], ['callback', op]);
  return { id: (message as { id: number }).id, op, body };
}

export function answer(client: TestClient, { id, op }: Pick<Callback, 'id' | 'op'>, body: object): void {
  client.send({ type: 'answer', op, id, body } as Message);
}

/** Asks for an outgoing session; the descriptor is the front's. Returns the number of the request. */
export const start = (bench: Bench, client: TestClient, body: object = {}): number => client.ask('starttls', { ...outgoing, ...body }, [bench.pair()[0]]);

/** The identity of the last session, when the engine has begun so many. */
export async function startedWith(bench: Bench, count = 1): Promise<unknown> {
  await until(() => bench.engine.named('startTls').length === count, { what: 'the engine to start TLS' });
  return (bench.engine.last('startTls')[2] as { context: { localid?: string } }).context.localid;
}
