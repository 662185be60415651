// Mocha's own spec report, and its counts in a file. The file is written once, when mocha says that the run has ended: a crash leaves none.
'use strict';

const { renameSync, writeFileSync } = require('node:fs');
const Spec = require('mocha').reporters.Spec;

module.exports = class CountingSpec extends Spec {
  constructor(runner, options) {
    super(runner, options);
    const file = options.reporterOptions?.results;
    if (file === undefined) return;
    runner.once('end', () => {
      const { passes, failures, pending, tests, duration } = this.stats;
      writeFileSync(`${file}.tmp`, `${JSON.stringify({ passed: passes, failed: failures, pending, tests, durationMs: duration })}\n`);
      renameSync(`${file}.tmp`, file);
    });
  }
};
