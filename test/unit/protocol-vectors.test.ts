import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { checkFds, decodeMessage, encodeMessage, fdRange, messageSpecs, messageTypes } from 'libtlspool/protocol';
import type { Direction, Message } from 'libtlspool/protocol';

interface Vector { readonly message: Record<string, unknown>; readonly fds: readonly string[]; readonly hex: string }

const file = path.resolve(import.meta.dirname, '../../../test/vectors/protocol.json');

/** JSON has no binary: {"$bin": "hex"} stands for it. */
function revive(_key: string, value: unknown): unknown {
  if (typeof value === 'object' && value !== null && '$bin' in value) return Buffer.from(String(value.$bin), 'hex');
  return value;
}

const vectors = JSON.parse(readFileSync(file, 'utf8'), revive) as readonly Vector[];
const directionsOf = (type: string): Direction[] => (['toPool', 'toClient'] as const).filter((direction) => (messageTypes[direction] as readonly string[]).includes(type));

/** Our encoder writes integers over 2^32 - 1 as int64 (0xd3), Python as uint64 (0xcf); both are right. Nothing else may differ. */
function withUint64(ours: Buffer, theirs: Buffer): Buffer {
  return Buffer.from(ours.map((octet, i) => (octet === 0xd3 && theirs[i] === 0xcf ? 0xcf : octet)));
}

describe('protocol: golden vectors', () => {
  it('every message of the table has a vector', () => {
    const inTable = Object.entries(messageSpecs).flatMap(([type, specs]) => [...specs.keys()].map((op) => `${type} ${op}`));
    const inVectors = vectors.map(({ message }) => `${String(message['type'])} ${String(message['op'])}`).filter((key) => !key.startsWith('error '));
    assert.deepEqual([...new Set(inVectors)].sort(), inTable.sort());
  });

  for (const { message, fds, hex } of vectors) {
    const type = message['type'] as Message['type'];
    const op = message['op'] as string;
    it(`${type} ${op} is the same octets here as in python3-msgpack`, () => {
      assert.equal(withUint64(encodeMessage(message as Message), Buffer.from(hex, 'hex')).toString('hex'), hex);
      for (const direction of directionsOf(type)) assert.deepEqual(decodeMessage(Buffer.from(hex, 'hex'), direction), message);
      checkFds(type, op, fds.length);
      for (const name of fds) assert.ok(fdRange(type, op).names.includes(name));
    });
  }
});
