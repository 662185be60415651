/**
 * The log of a process: one line each, as JSON or as text. Nothing secret is passed to it (control keys, exporter output and key files have no
 * business here); text that a peer chose is cut, and escaped by JSON or by us.
 */
import { pino } from 'pino';
import { Output } from './output.js';
import { RateLimit } from './ratelimit.js';
import { textLine } from './text.js';

export type LogLevel = 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'fatal' | 'silent';
/** `json`: an object with level, time in milliseconds, pid and msg. `text`: time, level, message, and fields as name=value. */
export type LogFormat = 'json' | 'text';

export interface LogFields { readonly [field: string]: string | number | boolean | undefined }

export interface LogOptions {
  /** Default `json`. */
  readonly format?: LogFormat;
  /** Gets whole lines. Default: standard output. */
  readonly destination?: { write(line: string): void };
}

type Level = 'debug' | 'info' | 'warn' | 'error';
type Writer = (level: Level, text: string, fields: LogFields) => void;

/** Longest piece of text kept in a log line, in characters. */
const maxText = 256;
/** In those that say what must be done: files with long names, several mistakes, and the cure comes last. */
const maxErrorText = 4096;
/** How long the end of the process waits for the reader of the log. */
const flushMs = 500;
/** Lines a second about things that peers can cause at will. */
const failuresPerSecond = 20;

/** Text of a peer, cut to a length that cannot flood the log. */
export function cut(text: string, max = maxText): string {
  return text.length <= max ? text : `${text.slice(0, max)}... (${text.length} characters)`;
}

const order: Readonly<Record<LogLevel, number>> = { trace: 10, debug: 20, info: 30, warn: 40, error: 50, fatal: 60, silent: Infinity };

function jsonWriter(level: LogLevel, destination: { write(line: string): void }): Writer {
  const logger = pino({ level, base: { pid: process.pid }, formatters: { level: (label) => ({ level: label }) } }, destination);
  return (of, text, fields) => { logger[of](fields, text); };
}

function textWriter(level: LogLevel, destination: { write(line: string): void }): Writer {
  return (of, text, fields) => { if (order[of] >= order[level]) destination.write(textLine(new Date(), of, text, fields)); };
}

export class Log {
  readonly #write: Writer;
  readonly #failures: RateLimit;
  /** Read before a line of the hot path is composed. */
  readonly isDebug: boolean;
  readonly #output: Output | undefined;

  /** Writes to stdout unless given a destination. */
  constructor(level: LogLevel, { format = 'json', destination }: LogOptions = {}) {
    this.#output = destination === undefined ? new Output(1) : undefined;
    const writer = format === 'json' ? jsonWriter : textWriter;
    this.#write = writer(level, destination ?? this.#output as Output);
    this.isDebug = order[level] <= order.debug;
    this.#failures = new RateLimit(failuresPerSecond, (suppressed) => {
      this.info('more failures of connections than are logged', { suppressed });
    });
  }

  debug(text: string, fields: LogFields = {}): void { this.#write('debug', text, capped(fields)); }
  info(text: string, fields: LogFields = {}): void { this.#write('info', text, capped(fields)); }
  warn(text: string, fields: LogFields = {}): void { this.#write('warn', text, capped(fields)); }
  error(text: string, fields: LogFields = {}): void { this.#write('error', text, capped(fields, maxErrorText)); }

  /** For failures that anybody on the network can cause: at most 20 lines a second, and then a count of what was left out. */
  failure(text: string, fields: LogFields = {}): void {
    if (this.#failures.take()) this.info(text, fields);
  }

  /** Writes the count of suppressed lines, if any, and what waits, as far as its reader takes it soon. Call before the process ends. */
  async close(): Promise<void> {
    this.#failures.close();
    await this.#output?.drain(flushMs);
  }
}

function capped(fields: LogFields, max = maxText): LogFields {
  const result: Record<string, string | number | boolean | undefined> = {};
  for (const [name, value] of Object.entries(fields)) result[name] = typeof value === 'string' ? cut(value, max) : value;
  return result;
}
