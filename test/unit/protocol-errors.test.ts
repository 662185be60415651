import assert from 'node:assert/strict';
import { TlsPoolError } from 'libtlspool/protocol';

describe('protocol: errors', () => {
  it('from() leaves our own errors as they are', () => {
    const error = new TlsPoolError('BAD_ARGUMENT', { field: 'port' });
    assert.equal(TlsPoolError.from(error), error);
  });

  for (const thrown of [new TypeError('a secret'), 'a secret', undefined]) {
    it(`from() makes INTERNAL of ${String(thrown)}, which is the cause and not in the text`, () => {
      const error = TlsPoolError.from(thrown);
      assert.equal(error.code, 'INTERNAL');
      assert.equal(error.cause, thrown);
      assert.doesNotMatch(error.message, /secret/u);
    });
  }
});
