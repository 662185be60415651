/** The socket addon under a long run of packets of every size, with descriptors of every number, against what a model expects. */
import assert from 'node:assert/strict';
import { TlsPoolError } from 'libtlspool';
import { sockets } from 'libtlspool/native';
import type { OwnedFd } from 'libtlspool/native';
import { countDescriptors, withPair } from '../support/native-fds.js';
import { descriptors } from '../support/process-info.js';
import { until } from '../support/wait.js';
import { Random } from '../support/random.js';

const packets = 5000;
const mostFds = 253;

/** The code that receiving with these limits must throw, or undefined. Octets are looked at first. */
function refusal(octets: number, fds: number, maxOctets: number, maxFds: number): string | undefined {
  if (octets > maxOctets) return 'MESSAGE_TOO_LARGE';
  return fds > maxFds ? 'FD_COUNT' : undefined;
}

/** Mostly at a limit, one beside it, or far from it. */
const near = (random: Random, limit: number, most: number): number => Math.min(most, Math.max(0, random.pick([limit, limit - 1, limit + 1, random.below(most)])));

describe('socket addon: packets with descriptors, at random', () => {
  countDescriptors();

  for (const seed of [1, 2, 3]) {
    it(`${String(packets)} packets arrive whole or are refused, and every descriptor of a refused one is closed (seed ${String(seed)})`, () => withPair('seqpacket', async (left, right) => {
      const random = new Random(seed);
      const [a, b] = sockets.socketpair('stream');
      const opened = descriptors(process.pid);
      let [taken, refused] = [0, 0];
      for (let i = 0; i < packets; i++) {
        const maxOctets = 1 + random.below(300);
        const maxFds = random.chance(8) ? mostFds : random.below(8);
        const octets = random.octets(Math.max(1, near(random, maxOctets, 600)));
        const passed = Array.from({ length: near(random, maxFds, random.chance(20) ? mostFds : 9) }, () => random.pick([a, b]));
        assert.equal(sockets.send(left, octets, passed), octets.length);
        const code = refusal(octets.length, passed.length, maxOctets, maxFds);
        let fds: readonly OwnedFd[] = [];
        try {
          const packet = sockets.receive(right, maxOctets, maxFds);
          assert.equal(code, undefined, `${String(passed.length)} descriptors and ${String(octets.length)} octets were taken`);
          assert(packet !== null && packet.data.equals(octets) && !packet.eof);
          fds = packet.fds;
          assert.equal(fds.length, passed.length);
          const now = descriptors(process.pid);
          assert.deepEqual(fds.map((fd) => now.get(fd)), passed.map((fd) => opened.get(fd)));
          taken++;
        } catch (error) {
          if (!(error instanceof TlsPoolError)) throw error;
          assert.equal(error.code, code, error.message);
          refused++;
        } finally {
          for (const fd of fds) sockets.close(fd);
        }
        // Those of a refused one are closed by another thread.
        if (i % 100 === 0) await until(() => descriptors(process.pid).size === opened.size, { what: 'the descriptors to be closed' });
      }
      for (const fd of [a, b]) sockets.close(fd);
      assert(taken > packets / 5 && refused > packets / 5, `${String(taken)} taken, ${String(refused)} refused: the run tries too little of one`);
    }));
  }
});
