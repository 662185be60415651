/**
 * When identities, access rules and trust are read again: at start, when a file changes, every half minute to be sure, on
 * SIGHUP and on `tlspool reload`. All of these are the one function `reload`: parse and check all, then publish all.
 */
import { TlsPoolError, fitText } from 'libtlspool/protocol';
import { watchPaths, type WatchTarget } from 'tlspool-common/files';
import { changedKeys } from '../config/restart.js';
import { surroundings } from '../config/defaults.js';
import { loadConfig } from '../config/load.js';
import type { Config, Overrides } from '../config/types.js';
import type { RuleAccess } from '../policy/rules.js';
import type { OnTheFly } from './onthefly.js';
import { fingerprint } from './read.js';
import { identitySettings, readDefaultTrust } from './settings.js';
import { WrongPinError } from './sealed.js';
import type { Store } from './store.js';
import type { IdentitySettings, ReloadResult, UnlockOutcome } from './types.js';

type LogLine = (text: string, fields?: Readonly<Record<string, string | number | boolean | undefined>>) => void;
export interface ReloadLog { readonly info: LogLine; readonly warn: LogLine; readonly error: LogLine }

export interface ReloaderParts {
  readonly config: Config;
  readonly overrides: Overrides;
  readonly store: Store;
  readonly access: RuleAccess;
  /** The signing CA; absent: none is looked for in the configuration. */
  readonly onTheFly?: Pick<OnTheFly, 'prepare' | 'publish' | 'expiring'>;
  readonly log: ReloadLog;
  /** Milliseconds from the first sign of a change to the reload, so that certificate and key have both been written. Default 200. */
  readonly debounceMs?: number;
  /** Milliseconds between looks that need no sign; 0 for none. Default 30000. */
  readonly pollMs?: number;
}

const warnBeforeMs = 7 * 86_400_000;
/** The cap of `reloadError` in the status reply. */
const maxErrorOctets = 4096;

function signingFiles({ onTheFly }: Config): string[] {
  if (onTheFly === undefined) return [];
  const { certificate, key, trust } = onTheFly;
  return [certificate, key, ...(trust === undefined ? [] : [trust])];
}

export class Reloader {
  readonly #parts: ReloaderParts;
  readonly #record: { atMs?: number; error?: string } = {};
  readonly #warned = new Set<string>();
  readonly #startedIn = surroundings();
  #config: Config;
  /** Of the configuration file as it is in force. */
  #configPrint = '';
  #watches: { close(): void }[] = [];
  #watched = '';
  #debounce: NodeJS.Timeout | undefined;
  #poll: NodeJS.Timeout | undefined;
  #running: Promise<unknown> = Promise.resolve();
  #waiting: Promise<ReloadResult> | undefined;
  #stopped = false;

  constructor(parts: ReloaderParts) {
    this.#parts = parts;
    this.#config = parts.config;
  }

  /** The configuration in force. */
  get config(): Config { return this.#config; }

  /** Wall clock of the last success, and the text of a failure since; for `status`. A live object. */
  get record(): Readonly<{ atMs?: number; error?: string }> { return this.#record; }

  /** The first load, then watching. Throws what loading throws: a pool does not start with credentials that are bad. */
  async start(): Promise<ReloadResult> {
    const result = await this.reload();
    this.#schedulePoll(0);
    return result;
  }

  /**
   * Reads everything again and publishes it, or keeps everything and throws CONFIG_BAD or IDENTITY_BAD. A failure is also
   * remembered and logged, once per text: mostly it is a file change, not a caller, that asks. Calls during a reload share the next one.
   */
  reload(): Promise<ReloadResult> {
    this.#waiting ??= this.#inTurn(() => {
      this.#waiting = undefined;
      return this.#reload();
    });
    return this.#waiting;
  }

  /**
   * The same when nobody has asked, which happens all the time: then a configuration file that is what it was is not read again. Its users and groups
   * may be looked up in a directory on the network, and the pool waits for the answer.
   */
  #look(): Promise<ReloadResult> {
    return this.#waiting ?? this.#inTurn(() => this.#reload({ isLook: true }));
  }

  /** Opens the keys of a locked identity and publishes it, between reloads. The PIN stays the caller's. Throws what is wrong with the identity apart from the PIN. */
  unlock(localid: string, pin: Buffer): Promise<UnlockOutcome> {
    return this.#inTurn(() => this.#unlock(localid, pin));
  }

  /** Ends watching. May be called twice. */
  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#debounce);
    clearTimeout(this.#poll);
    for (const watch of this.#watches) watch.close();
    this.#watches = [];
  }

  /** The store prepares one thing at a time. */
  #inTurn<T>(task: () => Promise<T>): Promise<T> {
    const run = this.#running.then(task);
    this.#running = run.catch(() => undefined);
    return run;
  }

  async #reload({ isLook = false } = {}): Promise<ReloadResult> {
    try {
      const result = await this.#readAndPublish(isLook);
      if (this.#record.error !== undefined) this.#parts.log.info('reload succeeded again', { changed: result.changed.join(' ') });
      else if (result.changed.length > 0) this.#parts.log.info('identities published', { changed: result.changed.join(' '), unchanged: result.unchanged });
      this.#record.atMs = Date.now();
      delete this.#record.error;
      this.#warnOfExpiry();
      return result;
    } catch (error) {
      this.#fail(error);
      throw error;
    }
  }

  async #unlock(localid: string, pin: Buffer): Promise<UnlockOutcome> {
    const { store, log } = this.#parts;
    let draft;
    try {
      draft = await store.prepareUnlocked(localid, pin);
    } catch (error) {
      if (error instanceof WrongPinError) return 'wrong';
      throw error;
    }
    if (draft === undefined) return 'gone';
    store.publish(draft);
    log.info('identities published', { changed: localid });
    this.#warnOfNames(draft.ambiguous);
    return 'unlocked';
  }

  async #readAndPublish(isLook: boolean): Promise<ReloadResult> {
    const { store, access, onTheFly, overrides } = this.#parts;
    const { file } = this.#config;
    // Before reading: what changes later has another print.
    const configPrint = file === undefined ? '' : await fingerprint([file]);
    const config = file === undefined || (isLook && configPrint === this.#configPrint) ? this.#config : loadConfig(file, overrides, surroundings(this.#startedIn));
    const fixed = changedKeys(this.#config, config);
    if (fixed.length > 0) throw new TlsPoolError('CONFIG_BAD', { text: `${config.file ?? ''}: ${fixed.join(', ')} changed, which needs a restart of the pool; restart it, or put the old value back` });
    const settings = await identitySettings(config);
    // Before reading: a change between reading and watching would be seen by neither.
    this.#watch(config, settings);
    const draft = await store.prepare(settings, await readDefaultTrust(config, store.trust));
    const authority = await onTheFly?.prepare(config);
    // From here on nothing fails.
    const isAccessChanged = JSON.stringify(config.access) !== JSON.stringify(this.#config.access);
    access.replace({ rules: config.access, sessionsPerClient: config.limits.sessionsPerClient });
    this.#config = config;
    this.#configPrint = configPrint;
    onTheFly?.publish(authority, draft.trust);
    const result = store.publish(draft, isAccessChanged);
    if (draft.changed.length > 0) this.#warnOfNames(draft.ambiguous);
    this.#warnOfLocks(draft.changed);
    return result;
  }

  #fail(error: unknown): void {
    const text = fitText(error instanceof Error ? error.message : String(error), maxErrorOctets);
    if (this.#record.error !== text) this.#parts.log.error('reload failed; everything stays as it was', { reason: text });
    this.#record.error = text;
  }

  #watch(config: Config, settings: readonly IdentitySettings[]): void {
    const own: WatchTarget[] = [...(config.file === undefined ? [] : [config.file]), ...config.trust.roots, ...signingFiles(config)].map((file) => ({ file }));
    if (config.identitiesDirectory !== undefined) own.push({ folder: config.identitiesDirectory });
    const wanted = JSON.stringify([own, settings.map(({ source }) => source.description)]);
    if (this.#stopped || wanted === this.#watched) return;
    for (const watch of this.#watches) watch.close();
    const changed = () => { this.#onChange(); };
    this.#watches = [watchPaths(own, changed), ...settings.map(({ source }) => source.watch(changed))];
    this.#watched = wanted;
  }

  /** From the *first* sign on, so that a file that is written all the time cannot put the reload off for ever. */
  #onChange(): void {
    if (this.#stopped || this.#debounce !== undefined) return;
    this.#debounce = setTimeout(() => {
      this.#debounce = undefined;
      this.#reloadQuietly();
    }, this.#parts.debounceMs ?? 200).unref();
  }

  #reloadQuietly(): void {
    // The failure has been logged and is kept in the record.
    this.#look().catch(() => undefined);
  }

  /** Watches miss what network file systems and overlay mounts do. With very many identities the looks come less often: they cost at most 1% of a processor. */
  #schedulePoll(lastTookMs: number): void {
    const { pollMs = 30_000 } = this.#parts;
    if (pollMs === 0 || this.#stopped) return;
    this.#poll = setTimeout(() => {
      const startedAt = performance.now();
      const again = () => { this.#schedulePoll(performance.now() - startedAt); };
      this.#look().then(again, again);
    }, Math.max(pollMs, lastTookMs * 100)).unref();
  }

  #warnOfNames(ambiguous: readonly { readonly name: string; readonly localids: readonly string[] }[]): void {
    for (const { name, localids } of ambiguous) {
      this.#parts.log.warn('several identities have this server name: a client that may use them must ask for a localid. Or put it under "names" of one of them', { name, localids: localids.join(' ') });
    }
  }

  #warnOfLocks(changed: readonly string[]): void {
    for (const { localid, source } of this.#parts.store.locked()) {
      if (changed.includes(localid)) this.#parts.log.warn('the key of an identity is locked: give its PIN, with: tlspool unlock', { localid, source });
    }
  }

  #warnOfExpiry(): void {
    const { store, onTheFly } = this.#parts;
    for (const { localid, subject, notAfterMs, revision } of [...store.expiring(warnBeforeMs), ...onTheFly?.expiring(warnBeforeMs) ?? []]) {
      const state = notAfterMs <= Date.now() ? 'has expired' : 'expires soon';
      const key = `${localid} ${revision} ${subject} ${state}`;
      if (this.#warned.has(key)) continue;
      this.#warned.add(key);
      this.#parts.log.warn(`a certificate ${state}; renew it`, { localid, subject, notAfter: new Date(notAfterMs).toISOString() });
    }
  }
}
