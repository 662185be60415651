import assert from 'node:assert/strict';
import process from 'node:process';
import { repoRoot, run } from '../support/index.js';
import { describeCases } from './native-cases.js';

/** Seconds for each fuzzer; `npm run fuzz` gives them more. */
const seconds = 12;

/** Defects that were found once: the case fails while its defect is there. */
const regressions = [
  ['stale-watch', 'an event on a copy of a passed socket does not reach a session that has ended'],
  ['blocking-mode-taken-away', 'a client that clears O_NONBLOCK of what it passed does not stop a worker'],
  ['blocked-flight', 'a flight that the socket takes in parts is sent to its end'],
  ['name-changed-after-asking', 'a second ClientHello cannot name another server than the owner allowed'],
  ['client-gone-before-our-finished', 'a client that leaves before the last flight is sent fails its handshake and ends nothing else'],
  ['descriptor-shortage', 'a session that had to wait for descriptors loses none of its records'],
  ['passed-plain-side-beside-backend', "a passed plain side stays the application's where there is a backend, too"],
  ['peer-gone-after-close-notify', 'a peer that says close_notify and leaves ends the session of an idle application'],
  ['revoked-then-closed', 'a revoked session cannot be prolonged by closing it again'],
  ['packets-too-small-for-a-record', 'octets that a packet socket cannot take are no orderly end'],
  ['key-update-after-our-end', "a peer that asks for new keys goes on sending after the application's end"],
  ['end-behind-key-update', 'a stream that ends where the keys change ends with close_notify'],
  ['write-amid-a-long-ticket', 'what is written between the records of a session ticket arrives'],
  ['stalled-after-application-left', 'a peer that takes nothing does not keep a session without application'],
] as const;

describe('fuzzers of native code', function () {
  this.timeout(600_000);

  it('handshakes, records and name tables stand a short run of each, under the address and undefined sanitizers', async () => {
    const { stdout } = await run(process.execPath, ['scripts/fuzz.mjs', '--seconds', String(seconds)], { cwd: repoRoot, deadlineMs: 590_000 });
    for (const name of ['handshake', 'records', 'models']) assert.match(stdout, new RegExp(`fuzz ${name}: [1-9]\\d+ runs .*nothing found`, 'u'));
  });
});

describeCases('engine: defects that fuzzing and review found', 'regressions', regressions);
