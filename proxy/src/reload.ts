/** When the configuration is read again: on SIGHUP, and when the file changes. All or nothing, and never twice at a time. */
import { statSync } from 'node:fs';
import { TlsPoolError } from 'libtlspool/protocol';
import { watchPaths } from 'tlspool-common/files';
import type { Log } from 'tlspool-common/log';
import { loadProxyConfig } from './config/load.js';
import type { ProxyConfig } from './config/types.js';

export interface ReloaderParts {
  readonly file: string;
  /** What stateOf(file) was before `config` was read from it. */
  readonly state: string;
  readonly config: ProxyConfig;
  readonly log: Pick<Log, 'info' | 'error'>;
  /** Puts a configuration in force, or throws and leaves everything as it was. */
  apply(config: ProxyConfig): void | Promise<void>;
  /** Milliseconds from the first sign of a change to the reload. Default 200. */
  readonly debounceMs?: number;
  /** Milliseconds between looks that need no sign. Default 30000. */
  readonly pollMs?: number;
}

const fixedKeys: Readonly<Record<string, (config: ProxyConfig) => string | undefined>> = {
  pool: ({ pool }) => pool, 'log.level': ({ log }) => log.level, 'log.format': ({ log }) => log.format,
};

/** For the test that holds this table and the documentation together. */
export const restartKeys: readonly string[] = Object.keys(fixedKeys);

/** Everything that changes when a file is replaced, written or given other permissions. */
export function stateOf(file: string): string {
  const stat = statSync(file, { bigint: true, throwIfNoEntry: false });
  return stat === undefined ? 'none' : [stat.dev, stat.ino, stat.size, stat.mtimeNs, stat.ctimeNs].join(' ');
}

const fingerprint = (config: ProxyConfig): string => JSON.stringify(config, (_key, value: unknown) => (value instanceof Map ? [...value as Map<unknown, unknown>] : value));

export class ProxyReloader {
  readonly #parts: ReloaderParts;
  #config: ProxyConfig;
  #state: string;
  #error: string | undefined;
  #watch: { close(): void } | undefined;
  #debounce: NodeJS.Timeout | undefined;
  #poll: NodeJS.Timeout | undefined;
  #running: Promise<void> = Promise.resolve();
  #isStopped = false;

  constructor(parts: ReloaderParts) {
    this.#parts = parts;
    this.#config = parts.config;
    this.#state = parts.state;
  }

  /** The configuration in force. */
  get config(): ProxyConfig { return this.#config; }

  /** Begins to watch. */
  start(): void {
    const { file, debounceMs = 200, pollMs = 30_000 } = this.#parts;
    // From the *first* sign on, so that a file that is written all the time cannot put the reload off for ever.
    this.#watch = watchPaths([{ file }], () => {
      if (!this.#isStopped) this.#debounce ??= setTimeout(() => { this.#debounce = undefined; this.#look(); }, debounceMs).unref();
    });
    // Watches miss what network file systems and overlay mounts do.
    this.#poll = setInterval(() => { this.#look(); }, pollMs).unref();
    // Since it was read and before it was watched.
    this.#look();
  }

  /** Ends watching. May be called twice. */
  stop(): void {
    this.#isStopped = true;
    clearTimeout(this.#debounce);
    clearInterval(this.#poll);
    this.#watch?.close();
  }

  /** Because somebody asked: is answered in the log in any case. Never rejects. */
  reload(): Promise<void> {
    return this.#after(() => this.#reload(true));
  }

  #look(): void {
    void this.#after(async () => { if (stateOf(this.#parts.file) !== this.#state) await this.#reload(false); });
  }

  #after(work: () => Promise<void>): Promise<void> {
    this.#running = this.#running.then(() => (this.#isStopped ? undefined : work()));
    return this.#running;
  }

  async #reload(isAsked: boolean): Promise<void> {
    const { file, log } = this.#parts;
    try {
      // Before reading: a change after it is seen by the next look.
      this.#state = stateOf(file);
      const isNew = await this.#readAndApply();
      if (isNew || this.#error !== undefined || isAsked) log.info(isNew ? 'configuration reloaded' : 'configuration read again: it is what is in force', { config: file });
      this.#error = undefined;
    } catch (error) {
      const text = error instanceof Error ? error.message : String(error);
      if (isAsked || text !== this.#error) for (const reason of text.split('\n')) log.error('reload failed; everything stays as it was', { reason });
      this.#error = text;
    }
  }

  async #readAndApply(): Promise<boolean> {
    const { file } = this.#parts;
    const config = loadProxyConfig(file);
    const fixed = Object.entries(fixedKeys).filter(([, get]) => get(config) !== get(this.#config)).map(([key]) => key);
    if (fixed.length > 0) throw new TlsPoolError('CONFIG_BAD', { text: `${file}: ${fixed.join(', ')} changed, which needs a restart; restart the proxy, or put the old value back` });
    if (fingerprint(config) === fingerprint(this.#config)) return false;
    await this.#parts.apply(config);
    this.#config = config;
    return true;
  }
}
