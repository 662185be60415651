/** `tlspool unlock`, `tlspool choose`, `tlspool forget`: what a terminal can do for the pool. */
import type { Command } from 'commander';
import { TlsPoolError } from 'libtlspool/protocol';
import type { Pool } from 'libtlspool';
import type { PoolCommand, Shown } from './commands.js';
import type { UnlockOptions } from './unlock.js';

/** How the commands reach the pool and what they say. */
export interface ServiceContext {
  /** One request or a few, and no more. */
  ask(run: PoolCommand): Shown;
  /** A connection that can be asked back; closed when `run` has ended. */
  connected<T>(run: (pool: Pool) => Promise<T>): Promise<T>;
  show(shown: Shown): void;
  out(text: string): void;
}

const maxRememberS = 31_536_000;

export function addServiceCommands(program: Command, context: ServiceContext): void {
  program.command('unlock').description('give the PINs of locked keys')
    .option('--pin-file <file>', 'file of mode 0600 whose first line is the PIN, instead of the terminal')
    .option('--wait', 'stay, and give PINs whenever the pool asks for one')
    .action(async (options: UnlockOptions) => {
      const { unlock } = await import('./unlock.js');
      context.show(await context.connected((pool) => unlock(pool, options)));
    });
  program.command('choose').description('choose the identities of your programs\' outgoing sessions, at this terminal')
    .option('--remember <duration>', 'have the pool remember each choice, such as 8h or 30d')
    .action(async ({ remember }: { remember?: string }) => {
      const options = remember === undefined ? {} : { rememberS: await parseRemember(remember) };
      const { choose } = await import('./choose.js');
      await context.connected((pool) => choose(pool, options, { input: process.stdin, out: (text) => { context.out(text); } }));
    });
  program.command('forget').description('forget choices that were remembered for you')
    .argument('[remote]', 'name of the server; without it, all are forgotten')
    .action((remote: string | undefined) => { context.show(context.ask((pool) => forget(pool, remote))); });
}

function forget(pool: Parameters<PoolCommand>[0], remote: string | undefined): Shown {
  const value = pool.request('forget', remote === undefined ? {} : { remoteid: remote });
  return { value, text: `forgotten: ${value.forgotten}` };
}

async function parseRemember(text: string): Promise<number> {
  // What reads configurations is loaded only by the commands that need it.
  const { parseDuration } = await import('../config/schema.js');
  const seconds = parseDuration(text);
  if (seconds === undefined || seconds < 1 || seconds > maxRememberS) {
    throw new TlsPoolError('BAD_ARGUMENT', { text: `--remember: ${JSON.stringify(text)} is not a duration from 1s to 365d, written as a number with s, m, h or d`, field: 'remember' });
  }
  return seconds;
}
