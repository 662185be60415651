import assert from 'node:assert/strict';
import { checkFds, fdRange, maxMessageFds, messageSpecs } from 'libtlspool/protocol';
import type { MessageType } from 'libtlspool/protocol';

const all = Object.entries(messageSpecs).flatMap(([type, specs]) => [...specs].map(([op, spec]) => ({ type: type as MessageType, op, spec })));

describe('protocol: descriptors per message', () => {
  for (const { type, op } of all) {
    const { min, max } = fdRange(type, op);
    it(`${type} ${op} takes ${min === max ? min : `${min} to ${max}`} descriptors, neither fewer nor more`, () => {
      for (let count = 0; count <= maxMessageFds + 1; count++) {
        if (count >= min && count <= max) checkFds(type, op, count);
        else assert.throws(() => { checkFds(type, op, count); }, { code: 'FD_COUNT', field: 'fds' });
      }
    });
  }

  it('the table keeps to its own rules: at most four, and the ones that may be absent come last', () => {
    for (const { type, op, spec } of all) {
      const optional = spec.fds.map((name) => name.endsWith('?'));
      assert.ok(spec.fds.length <= maxMessageFds);
      assert.deepEqual(optional, [...optional].sort((a, b) => Number(a) - Number(b)), `${type} ${op}`);
    }
  });

  it('names are in the order of the packet', () => {
    assert.deepEqual(fdRange('request', 'starttls'), { min: 1, max: 2, names: ['cryptfd', 'plainfd'] });
    assert.deepEqual(fdRange('event', 'connection'), { min: 0, max: 1, names: ['plainfd'] });
  });

  it('an error carries none, whatever op it names; an op that is not there is UNKNOWN_OP', () => {
    checkFds('error', 'anything', 0);
    assert.throws(() => { checkFds('error', 'anything', 1); }, { code: 'FD_COUNT' });
    assert.throws(() => { checkFds('request', 'constructor', 0); }, { code: 'UNKNOWN_OP' });
  });
});
