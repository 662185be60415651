/**
 * On-the-fly identities: certificates that a signing CA makes for the name which is asked for, when it is asked for. Keys are made for one name, live in this process, and
 * are given up with the certificate. Every certificate that is made is logged with the client it was made for. Fails closed.
 */
import { TlsPoolError, escapeText } from 'libtlspool/protocol';
import type { Config } from '../config/types.js';
import type { Context, ContextSpec, Engine, Selector } from '../engine.js';
import type { AccessPolicy, Client } from '../policy/access.js';
import { presets } from '../policy/presets.js';
import { isExcluded, maySignFor, readAuthority, type Authority } from './authority.js';
import { oneLine } from './inspect.js';
import { SigningCache, type Made } from './signing-cache.js';
import { signFor, type Signed } from './signed-leaf.js';
import type { DefaultTrust } from './settings.js';
import { isListed, parseSignedName, type SignedName } from './signed-names.js';
import type { Expiry } from './store.js';
import { Turns } from './turns.js';

type Role = 'server' | 'client';

/** Makes identities on demand. */
export interface Signer {
  /** May this client have anything signed for it in this role now? Throws NOT_PERMITTED, SIGNING_UNAVAILABLE. */
  ensure(client: Client, role: Role): void;
  /** For sessions that wait for a decision: a table that serves nobody. Made once, so that it holds whatever is configured later. */
  readonly undecided: Selector;
  /**
   * SNI table with a certificate for this host name or address, which serves clients without a server name, too. Rejects with NOT_PERMITTED, and SIGNING_UNAVAILABLE where
   * there is no CA, the name is none or not allowed, or too many wait.
   */
  serverSelector(client: Client, name: string): Promise<Selector>;
  /** Context with a certificate for this host name, address or e-mail address, and the trust for outgoing connections. Rejects as serverSelector() does. */
  clientContext(client: Client, localid: string): Promise<Context>;
}

type LogFields = Readonly<Record<string, string | number | boolean | undefined>>;

export interface OnTheFlyParts {
  readonly engine: Pick<Engine, 'context' | 'selector'>;
  readonly access: Pick<AccessPolicy, 'may'>;
  readonly log: { info(text: string, fields: LogFields): void; error(text: string, fields: LogFields): void };
  /** Wall clock in milliseconds; tests set it. */
  readonly now?: () => number;
}

/** Revisions of what is made on the fly count from here, so that none is taken for one of an identity with the same name. */
export const firstSignedRevision = 1_000_000_000;
/**
 * Few at once, because each waits for the same threads; the places are for the names of a busy proxy that has just been started. Each costs this process, which
 * serves everybody, a few milliseconds: peers who make up names must not have all of its time.
 */
const turns = { atOnce: 4, places: 64, perSecond: 50, burst: 100 } as const;
/** A context for the client role may hold the roots of the whole system: about a megabyte. */
const maxClientContexts = 64;
const ticketLifetimeS = 3600;

function unavailable(text: string, cause?: unknown): TlsPoolError {
  return new TlsPoolError('SIGNING_UNAVAILABLE', { text, ...(cause === undefined ? {} : { cause }) });
}

/** Text of a peer. */
const quoted = (name: string): string => `"${escapeText(name, 255)}"`;

/** What is in force. Replaced as a whole. */
interface Force { readonly authority: Authority; readonly trust: DefaultTrust | undefined }
/** What was made: a selector in the server role. */
interface Identity { readonly context: Context; readonly selector?: Selector }

export class OnTheFly implements Signer {
  readonly #parts: OnTheFlyParts;
  readonly #now: () => number;
  readonly #turns = new Turns(turns);
  readonly #caches: Readonly<Record<Role, SigningCache<Identity>>>;
  #force: Force | undefined;
  #undecided: Selector | undefined;
  #revision = firstSignedRevision;

  constructor(parts: OnTheFlyParts) {
    this.#parts = parts;
    this.#now = parts.now ?? Date.now;
    this.#caches = { server: new SigningCache(this.#now), client: new SigningCache(this.#now) };
  }

  /** Reads and checks the CA of this configuration; what is in use stays as it is. Undefined: it has none. Throws IDENTITY_BAD. */
  async prepare({ onTheFly }: Config): Promise<Authority | undefined> {
    return onTheFly === undefined ? undefined : readAuthority(onTheFly, this.#force?.authority, this.#now());
  }

  /** Puts it in force. Nothing that another CA, or this one with other settings, has made is used any more. */
  publish(authority: Authority | undefined, trust: DefaultTrust | undefined): void {
    const before = this.#force;
    this.#force = authority === undefined ? undefined : { authority, trust };
    const isSameCa = authority !== undefined && before?.authority.digest === authority.digest;
    if (!isSameCa) this.#caches.server.clear();
    if (!isSameCa || before?.trust?.digest !== trust?.digest) this.#caches.client.clear();
    const most = authority?.settings.cache ?? 0;
    this.#caches.server.resize(most);
    this.#caches.client.resize(Math.min(most, maxClientContexts));
  }

  /** Certificates of the CA and its issuers that end within `withinMs`, or have ended. */
  expiring(withinMs: number): readonly Expiry[] {
    const limitMs = this.#now() + withinMs;
    return (this.#force?.authority.certificates ?? []).map((one) => ({ localid: 'onTheFly', subject: oneLine(one.subject), notAfterMs: Date.parse(one.validTo), revision: 0 }))
      .filter(({ notAfterMs }) => notAfterMs <= limitMs);
  }

  get undecided(): Selector {
    if (this.#undecided === undefined) {
      const context = this.#parts.engine.context(this.#spec(presets.intermediate, '', 0));
      // Not noName, not unknownName: without a decision nobody is served.
      this.#undecided = this.#parts.engine.selector({ names: [['undecided.invalid', context]] });
    }
    return this.#undecided;
  }

  ensure(client: Client, role: Role): void {
    this.#permitted(client, role);
  }

  async serverSelector(client: Client, name: string): Promise<Selector> {
    const { selector } = await this.#obtain(client, 'server', name);
    if (selector === undefined) throw new TlsPoolError('INTERNAL');
    return selector;
  }

  async clientContext(client: Client, localid: string): Promise<Context> {
    return (await this.#obtain(client, 'client', localid)).context;
  }

  #permitted(client: Client, role: Role): Force {
    const { access } = this.#parts;
    if (!access.may(client, role) || !access.may(client, 'sign')) {
      throw new TlsPoolError('NOT_PERMITTED', { text: `user ${client.uid} may not have certificates made on the fly in the ${role} role; the operator can allow it by "sign" in a rule under "access"` });
    }
    const force = this.#force;
    if (force === undefined) throw unavailable('the pool has no signing CA; the operator can configure one by "onTheFly"');
    if (!maySignFor(force.authority, role)) throw unavailable(`the signing CA is not for certificates of TLS ${role}s (extended key usage)`);
    return force;
  }

  /** Throws SIGNING_UNAVAILABLE for names that may not be signed. */
  #nameFor({ authority }: Force, asked: string, role: Role): SignedName {
    const name = parseSignedName(asked, role);
    if (name === undefined) throw unavailable(`${quoted(asked)} is no name for a certificate of a TLS ${role}: ${role === 'server' ? 'a host name or an address' : 'a host name, an address or an e-mail address'} is`);
    if (!isListed(authority.settings.names, name)) throw unavailable(`certificates for ${quoted(name.value)} are not made here; the operator can allow more names by onTheFly.names`);
    if (isExcluded(authority, name)) throw unavailable(`the name constraints of the signing CA do not allow ${quoted(name.value)}`);
    return name;
  }

  /** One that is there, or a new one; whoever asks for the same name meanwhile gets the same. */
  async #obtain(client: Client, role: Role, asked: string): Promise<Identity> {
    for (;;) {
      const force = this.#permitted(client, role);
      const name = this.#nameFor(force, asked, role);
      const made = this.#caches[role].obtain(name.value, () => this.#begin(force, client, role, name), (notAfterMs) => this.#endOf(force.authority) > notAfterMs);
      const identity = made instanceof Promise ? await made : made;
      // Another CA, other names or other rules may be in force by now: then all of it is asked again.
      if (force === this.#force) return identity;
    }
  }

  /** When a certificate that is made now ends: no leaf outlives its CA (RFC 5280 section 6.1 would refuse it then). */
  #endOf({ settings, notAfterMs }: Authority): number {
    return Math.min(Math.floor(this.#now() / 1000) * 1000 + settings.lifetimeS * 1000, notAfterMs);
  }

  #begin(force: Force, client: Client, role: Role, name: SignedName): Promise<Made<Identity>> {
    const { authority } = force;
    const notAfterMs = this.#endOf(authority);
    if (notAfterMs <= this.#now()) throw unavailable('the signing CA has expired; the operator can put another one in its place');
    const begun = this.#turns.take(client.uid, () => signFor(authority, { name, role, nowMs: this.#now(), notAfterMs }));
    if (begun === undefined) throw unavailable('too many certificates are being made at this moment; try again');
    return begun.then((signed) => this.#take(force, client, role, name, signed), (error: unknown) => { throw this.#failed(error, name.value); });
  }

  #take(force: Force, client: Client, role: Role, { value }: SignedName, signed: Signed): Made<Identity> {
    const { engine, log } = this.#parts;
    const { settings, trust: ownTrust } = force.authority;
    const trust = role === 'server' ? ownTrust : ownTrust ?? force.trust?.pem;
    try {
      this.#revision += 1;
      const context = engine.context({
        ...this.#spec(presets[settings.policy], value, this.#revision), keyPairs: [{ chain: signed.chain, key: signed.key }],
        ...(trust === undefined ? {} : { trust }), clientAuth: role === 'server' ? settings.clientAuth : 'none', ticketTag: signed.ticketTag,
      });
      log.info('a certificate was made on the fly', {
        name: value, role, serial: signed.serial, notAfter: new Date(signed.notAfterMs).toISOString(), uid: client.uid, clientPid: client.pid, unit: client.unit,
      });
      const identity = role === 'client' ? { context } : { context, selector: engine.selector({ names: [[value, context]], noName: context }) };
      return { value: identity, notAfterMs: signed.notAfterMs };
    } catch (error) {
      throw this.#failed(error, value);
    } finally {
      signed.key.fill(0);
    }
  }

  #failed(error: unknown, name: string): TlsPoolError {
    this.#parts.log.error('a certificate could not be made on the fly', { name, text: error instanceof Error ? error.message : String(error) });
    return unavailable(`a certificate for ${quoted(name)} could not be made; the log of the pool says why`, error);
  }

  #spec(preset: (typeof presets)[keyof typeof presets], localid: string, revision: number): ContextSpec {
    return { ...preset, localid, revision, keyPairs: [], clientAuth: 'none', ticketLifetimeS, ticketTag: 'undecided' };
  }
}
