/**
 * Goes on with sessions that come, with control key and plain text, over descriptor 3 from the test, and echoes; TLSPOOL_SOCKET names the pool. Each says how it is to be passed on.
 * Says {up}, {taken}, {passed} with the descriptor, {ended}; is told {session}, {giveBack} and {stop}.
 */
import { connectPool } from 'libtlspool';
import type { OwnedFd } from 'libtlspool/native';
import { Courier } from '../courier.js';
import { Echo } from '../echo.js';
import type { Passed, ToHolder, ToTest } from '../holders.js';

const holder = 3 as OwnedFd;
const pool = await connectPool();
const held = new Map<number, Echo>();

async function takeOver({ n, ctlkey, octets, next }: Passed, fd: OwnedFd): Promise<void> {
  const echo = new Echo(await pool.reattach(Buffer.from(ctlkey, 'hex'), fd, { allowHalfOpen: true }), octets);
  held.set(n, echo);
  echo.socket.once('end', () => { echo.socket.end(); });
  void echo.outcome.then((how) => { held.delete(n); courier.send({ kind: 'ended', n, how, octets: echo.octets }); });
  courier.send({ kind: 'taken', n });
  if (next === undefined) return;
  await echo.reaches(next.after);
  await giveAway(n, next.to);
}

async function giveAway(n: number, to: number | undefined): Promise<void> {
  const echo = held.get(n);
  if (echo === undefined) return;
  held.delete(n);
  const { fd, ctlkey } = await echo.release();
  courier.send({ kind: 'passed', n, ctlkey: Buffer.from(ctlkey).toString('hex'), octets: echo.octets, ...(to === undefined ? {} : { to }) }, fd);
}

const report = (n: number) => (error: unknown): void => { courier.send({ kind: 'failed', n, text: String(error) }); };

const courier = new Courier<ToHolder | ToTest>(holder, (message, fd) => {
  if (message.kind === 'session' && fd !== undefined) takeOver(message, fd).catch(report(message.n));
  else if (message.kind === 'giveBack') for (const n of message.sessions) giveAway(n, undefined).catch(report(n));
  else if (message.kind === 'stop') {
    pool.close();
    courier.close();
  }
}, () => { process.exit(0); });
courier.send({ kind: 'up' });
