/** Not among the tests of the addon that run under sanitizers: the shadow memory of those has terabytes to look through. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { sockets } from 'libtlspool/native';
import { Program, scanMemory } from '../support/index.js';

describe('native addon: secrets that are received', () => {
  it('of what was received, refused or looked at, nothing stays behind in the addon', async () => {
    const [ours, theirs] = sockets.socketpair('seqpacket');
    const [taken, refused, looked, kept] = [randomBytes(512), randomBytes(256), randomBytes(128), randomBytes(64)];
    const program = new Program(process.execPath, ['--input-type=module', '--eval', `
      import { sockets } from ${JSON.stringify(import.meta.resolve('libtlspool/native'))};
      const wipe = (packet) => packet.fill(0);
      wipe(sockets.receive(3, 4096, 0).data);
      try { sockets.receive(3, 192, 0); } catch (error) { console.log(error.code); }
      wipe(sockets.peek(3, 4096));
      wipe(sockets.receive(3, 4096, 0).data);
      globalThis.kept = sockets.receive(3, 4096, 0).data;
      console.log('done');
      setInterval(() => {}, 1000);`], { passed: [theirs] });
    sockets.close(theirs);
    for (const packet of [taken, refused, looked, kept]) sockets.send(ours, packet);
    await program.output(/^MESSAGE_TOO_LARGE\ndone$/mu, 'stdout');
    const found = scanMemory(program.pid, [
      // Behind what came later, which lies over the rest.
      { name: 'taken', octets: taken.subarray(256) }, { name: 'refused', octets: refused.subarray(128, 160) }, { name: 'looked at', octets: looked.subarray(64) }, { name: 'kept', octets: kept },
    ]);
    assert.deepEqual(found, ['kept']);
    sockets.close(ours);
    program.kill('SIGKILL');
    await program.ended;
  });
});
