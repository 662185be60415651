/**
 * The daemon's log: one JSON object per line. Nothing secret is passed to it (control keys, exporter output and key files have no
 * business here); text that a peer chose is cut and goes through JSON, which escapes it.
 */
import { pino } from 'pino';
import type { DestinationStream, Logger } from 'pino';
import { Output } from './output.js';
import { RateLimit } from './ratelimit.js';

export type LogLevel = 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'fatal' | 'silent';

export interface LogFields { readonly [field: string]: string | number | boolean | undefined }

/** Longest piece of text kept in a log line, in characters. */
const maxText = 256;
/** How long the end of the process waits for the reader of the log. */
const flushMs = 500;
/** Lines a second about things that peers can cause at will. */
const failuresPerSecond = 20;

/** Text of a peer, cut to a length that cannot flood the log. */
export function cut(text: string, max = maxText): string {
  return text.length <= max ? text : `${text.slice(0, max)}... (${text.length} characters)`;
}

export class Log {
  readonly #pino: Logger;
  readonly #failures: RateLimit;
  /** Read before a line of the hot path is composed. */
  readonly isDebug: boolean;

  readonly #output: Output | undefined;

  /** Writes to stdout unless given a destination. */
  constructor(level: LogLevel, destination?: DestinationStream) {
    const output = destination === undefined ? new Output(1) : undefined;
    const stream = destination ?? output;
    this.#output = output;
    this.#pino = pino({ level, base: { pid: process.pid }, formatters: { level: (label) => ({ level: label }) } }, stream);
    this.isDebug = this.#pino.isLevelEnabled('debug');
    this.#failures = new RateLimit(failuresPerSecond, (suppressed) => {
      this.#pino.info({ suppressed }, 'more failures of connections than are logged');
    });
  }

  debug(text: string, fields: LogFields = {}): void { this.#pino.debug(capped(fields), text); }
  info(text: string, fields: LogFields = {}): void { this.#pino.info(capped(fields), text); }
  warn(text: string, fields: LogFields = {}): void { this.#pino.warn(capped(fields), text); }
  error(text: string, fields: LogFields = {}): void { this.#pino.error(capped(fields), text); }

  /** For failures that anybody on the network can cause: at most 20 lines a second, and then a count of what was left out. */
  failure(text: string, fields: LogFields = {}): void {
    if (this.#failures.take()) this.#pino.info(capped(fields), text);
  }

  /** Writes the count of suppressed lines, if any, and what waits, as far as its reader takes it soon. Call before the process ends. */
  async close(): Promise<void> {
    this.#failures.close();
    await this.#output?.drain(flushMs);
  }
}

function capped(fields: LogFields): LogFields {
  const result: Record<string, string | number | boolean | undefined> = {};
  for (const [name, value] of Object.entries(fields)) result[name] = typeof value === 'string' ? cut(value) : value;
  return result;
}
