// Defaults of mocha; scripts/test.mjs chooses the files.
'use strict';

const inCi = process.env.CI === 'true';

module.exports = {
  ui: 'bdd',
  timeout: 20_000,
  // `it.only` narrows a run silently, and a skipped test proves nothing: both fail where it counts.
  'forbid-only': inCi,
  'forbid-pending': inCi,
  'node-option': ['enable-source-maps'],
  'check-leaks': true,
};
