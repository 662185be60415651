/** The identities that are in use, and the SNI tables made of them. Publication is one synchronous step: all or nothing. */
import { TlsPoolError } from 'libtlspool/protocol';
import type { Context, Engine, Selector } from '../engine.js';
import type { AccessPolicy, Client } from '../policy/access.js';
import { makeDraft, makeUnlocked, namedOf, type Draft, type Entry } from './draft.js';
import { oneLine } from './inspect.js';
import { nameTable } from './names.js';
import type { DefaultTrust } from './settings.js';
import type { IdentitySettings, IdentityStore, LockedIdentity, Published, ReloadResult } from './types.js';

export interface StoreParts {
  readonly engine: Pick<Engine, 'context' | 'selector'>;
  readonly access: AccessPolicy;
  /** Wall clock in milliseconds; tests set it. */
  readonly now?: () => number;
}

export interface Expiry { readonly localid: string; readonly subject: string; readonly notAfterMs: number; readonly revision: number }

/** One text for "does not exist" and "not for you": a client must not learn names by trying. */
function unknown(localid: string): TlsPoolError {
  return new TlsPoolError('IDENTITY_UNKNOWN', { text: `there is no identity ${JSON.stringify(localid.slice(0, 255))} that this client may use in this role; ask the operator, who sees all with: tlspool identities` });
}

/** For those who may use it: others are told that it is not there. */
function lockedError(localid: string): TlsPoolError {
  return new TlsPoolError('IDENTITY_LOCKED', { text: `the key of the identity ${JSON.stringify(localid)} is locked, and nobody has unlocked it; an operator can, with: tlspool unlock` });
}

export class Store implements IdentityStore {
  readonly #engine: StoreParts['engine'];
  readonly #access: AccessPolicy;
  readonly #now: () => number;
  readonly #callbacks: ((changed: readonly string[]) => void)[] = [];
  readonly #revisions = new Map<string, number>();
  readonly #selectors = new Map<string, Selector>();
  #draft: Draft | undefined;

  constructor({ engine, access, now = Date.now }: StoreParts) {
    this.#engine = engine;
    this.#access = access;
    this.#now = now;
  }

  /** Reads and checks everything; what is in use stays as it is. One at a time. Throws IDENTITY_BAD or CONFIG_BAD. */
  prepare(settings: readonly IdentitySettings[], trust: DefaultTrust | undefined): Promise<Draft> {
    return makeDraft(this.#build(trust), settings);
  }

  /**
   * The identity read again and opened by the PIN, which stays the caller's; undefined when it is not locked (any more). What is in use stays as it
   * is. One at a time, also with `prepare`. Throws IDENTITY_BAD, CONFIG_BAD, WrongPinError.
   */
  async prepareUnlocked(localid: string, pin: Buffer): Promise<Draft | undefined> {
    const published = this.#draft?.entries.get(localid)?.published;
    if (this.#draft === undefined || published?.locked === undefined) return undefined;
    return makeUnlocked(this.#build(this.#draft.trust), this.#draft, published.settings, pin);
  }

  #build(trust: DefaultTrust | undefined) {
    const now = this.#draft;
    const previous = {
      entries: now?.entries ?? new Map<string, Entry>(), revisions: this.#revisions,
      ...(now?.trust === undefined ? {} : { trust: now.trust }), ...(now === undefined ? {} : { anonymous: now.anonymous }),
    };
    return { engine: this.#engine, trust, previous, nowMs: this.#now() };
  }

  /** Puts a draft in use; it must be the last one prepared. `isAccessChanged`: listeners must renew even with the same identities. */
  publish(draft: Draft, isAccessChanged = false): ReloadResult {
    this.#draft = draft;
    for (const [localid, { published }] of draft.entries) this.#revisions.set(localid, published.revision);
    const isNews = draft.changed.length > 0 || isAccessChanged;
    if (isNews) this.#selectors.clear();
    if (isNews || draft.isTrustChanged) for (const callback of this.#callbacks) callback(draft.changed);
    const unchanged = [...draft.entries.keys()].filter((localid) => !draft.changed.includes(localid)).length;
    return { changed: draft.changed, unchanged };
  }

  /** The trust that is in use, so that an unchanged file need not be parsed again. */
  get trust(): DefaultTrust | undefined {
    return this.#draft?.trust;
  }

  /** Certificates that end within `withinMs`, or have ended. */
  expiring(withinMs: number): readonly Expiry[] {
    const limitMs = this.#now() + withinMs;
    return [...(this.#draft?.entries.values() ?? [])].flatMap(({ published: { settings: { localid }, revision }, leaves }) =>
      leaves.map((leaf) => ({ localid, revision, subject: oneLine(leaf.subject), notAfterMs: Date.parse(leaf.validTo) })))
      .filter(({ notAfterMs }) => notAfterMs <= limitMs);
  }

  list(): readonly Published[] {
    return [...(this.#draft?.entries.values() ?? [])].map(({ published }) => published);
  }

  onPublished(callback: (changed: readonly string[]) => void): void {
    this.#callbacks.push(callback);
  }

  serverSelector(client: Client, localid: string | undefined): Selector {
    if (localid !== undefined) {
      const entry = this.#entryFor(client, localid, 'server');
      if (!entry.canServe) throw unknown(localid);
      const { context } = entry.published;
      if (context === undefined) throw lockedError(localid);
      return this.#cached(`one ${localid}`, () => this.#tableOfOne(entry, context));
    }
    const allowed = [...(this.#draft?.entries ?? [])].filter(([name, entry]) => entry.canServe && this.#access.mayUse(client, name, 'server'));
    if (allowed.length === 0) {
      throw new TlsPoolError('IDENTITY_UNKNOWN', { text: `there is no identity that user ${client.uid} may serve; the operator can allow some by a rule under "access" in the configuration` });
    }
    if (allowed.every(([, { published }]) => published.context === undefined)) throw lockedError(allowed[0]?.[0] ?? '');
    return this.#cached(`all ${JSON.stringify(allowed.map(([name]) => name))}`, () => this.#tableOf(new Map(allowed)));
  }

  serving(client: Client, name: string, preferred?: string): Selector | undefined {
    const sought = name.toLowerCase().replace(/\.$/, '');
    const wildcard = sought.replace(/^[^.]+/, '*');
    // The names first: peers may ask at will, and only who has the name counts.
    const allowed = [...(this.#draft?.entries ?? [])].filter(([localid, { canServe, published: { names } }]) =>
      (names.includes(sought) || names.includes(wildcard)) && canServe && this.#access.mayUse(client, localid, 'server'));
    for (const group of [allowed.filter(([localid]) => localid === preferred), allowed]) {
      const { owners } = nameTable(group.map(([, entry]) => namedOf(entry)));
      const owner = owners.get(sought) ?? owners.get(wildcard);
      // Throws where it is locked: whom it lets in is its own affair, and a certificate made in its place would not ask.
      if (owner !== undefined) return this.serverSelector(client, owner);
    }
    return undefined;
  }

  clientContext(client: Client, localid: string | undefined): Context {
    if (localid !== undefined) {
      const { clientContext, published: { locked } } = this.#entryFor(client, localid, 'client');
      if (clientContext !== undefined) return clientContext;
      if (locked !== undefined) throw lockedError(localid);
      throw new TlsPoolError('IDENTITY_UNKNOWN', { text: `the identity ${localid} cannot be used by a TLS client: its certificates are for servers only (extended key usage) and it has no ca.crt; use another identity, or none` });
    }
    if (this.#draft === undefined || !this.#access.may(client, 'client')) {
      throw new TlsPoolError('IDENTITY_UNKNOWN', { text: `user ${client.uid} may not use this pool for outgoing connections; the operator can allow it by a rule under "access" in the configuration` });
    }
    return this.#draft.anonymous;
  }

  clientIdentities(client: Client): readonly Published[] {
    if (!this.#access.may(client, 'client')) return [];
    return [...(this.#draft?.entries ?? [])].flatMap(([localid, { clientContext, published }]) =>
      ((clientContext !== undefined || published.locked !== undefined) && this.#access.mayUse(client, localid, 'client') ? [published] : []));
  }

  locked(): readonly LockedIdentity[] {
    return this.list().filter(({ locked }) => locked !== undefined).map(({ summary: { localid, source } }) => ({ localid, source }))
      .sort((a, b) => (a.localid < b.localid ? -1 : 1));
  }

  isLocked(client: Client, localid: string, role: 'server' | 'client'): boolean {
    const entry = this.#draft?.entries.get(localid);
    const isLocked = role === 'client' ? entry?.published.locked !== undefined : entry?.published.locked === 'all' && entry.canServe;
    return this.#access.mayUse(client, localid, role) && isLocked;
  }

  verifier(client: Client, localid: string): Context {
    const { published: { context, summary } } = this.#entryFor(client, localid, 'server');
    if (context === undefined) throw lockedError(localid);
    if (summary.trustRoots > 0) return context;
    throw new TlsPoolError('REAUTH_UNAVAILABLE', { text: `the identity ${localid} has no roots to check client certificates against; add ca.crt (or "trust"), or name another identity by localid` });
  }

  #entryFor(client: Client, localid: string, role: 'server' | 'client'): Entry {
    const entry = this.#draft?.entries.get(localid);
    // Both questions are always asked, so that time tells nothing either.
    const mayUse = this.#access.mayUse(client, localid, role);
    if (entry === undefined || !mayUse) throw unknown(localid);
    return entry;
  }

  #cached(key: string, make: () => Selector): Selector {
    const found = this.#selectors.get(key);
    if (found !== undefined) return found;
    const made = make();
    this.#selectors.set(key, made);
    return made;
  }

  /** An identity asked for by name also serves clients that send no server name. */
  #tableOfOne({ published: { names, settings } }: Entry, context: Context): Selector {
    return this.#engine.selector({ names: names.map((name) => [name, context]), noName: context, ...(settings.isDefault ? { unknownName: context } : {}) });
  }

  /** Names are shared out among the identities of this client: what others have does not make them ambiguous. */
  #tableOf(entries: ReadonlyMap<string, Entry>): Selector {
    const { owners } = nameTable([...entries.values()].map(namedOf));
    const contexts = new Map([...entries].map(([localid, { published }]) => [localid, published.context]));
    const names = [...owners].flatMap(([name, owner]): [string, Context][] => {
      const context = contexts.get(owner);
      return context === undefined ? [] : [[name, context]];
    });
    const fallback = [...entries.values()].find(({ published }) => published.settings.isDefault)?.published.context;
    return this.#engine.selector({ names, ...(fallback === undefined ? {} : { noName: fallback, unknownName: fallback }) });
  }
}
