/**
 * Makes ready what is to be published: every identity is read, checked and turned into contexts, and nothing is in use
 * until all of it worked. Keys are wiped when their context exists, or when it does not come to be.
 */
import { createHash, randomBytes, type X509Certificate } from 'node:crypto';
import { TlsPoolError } from 'libtlspool/protocol';
import type { Context, ContextSpec, Engine } from '../engine.js';
import { presets } from '../policy/presets.js';
import { checkDates, mayBeClient, parseCertificates, parseTrust, summarize } from './inspect.js';
import { nameTable, servedNames, type Named, type NameTable } from './names.js';
import { checkPeerRules, isForClientRoleOnly } from './peers.js';
import type { DefaultTrust } from './settings.js';
import type { IdentitySettings, Material, Published } from './types.js';

export interface Entry {
  readonly published: Published;
  /** Everything that matters about the identity; equal means unchanged. */
  readonly signature: string;
  /** The same without the pool's own trust. */
  readonly ownSignature: string;
  /** What resumption depends on, and the random tag of the ticket keys for it. */
  readonly ticketKey: string;
  readonly ticketTag: string;
  /** False for an identity without a certificate of its own. One that is locked keeps its names: nobody else is to serve them meanwhile. */
  readonly canServe: boolean;
  /** For the client role; absent when the certificates are for servers only and there is no trust of its own. */
  readonly clientContext?: Context;
  readonly leaves: readonly X509Certificate[];
}

export interface Draft {
  readonly entries: ReadonlyMap<string, Entry>;
  readonly ambiguous: NameTable['ambiguous'];
  readonly trust?: DefaultTrust;
  /** The client role without an identity. */
  readonly anonymous: Context;
  /** Localids that are new, different or gone. */
  readonly changed: readonly string[];
  readonly isTrustChanged: boolean;
}

export interface Previous {
  readonly entries: ReadonlyMap<string, Entry>;
  readonly trust?: DefaultTrust;
  readonly anonymous?: Context;
  /** The highest number ever given, also to identities that are gone. */
  readonly revisions: ReadonlyMap<string, number>;
}

export type ContextMaker = Pick<Engine, 'context'>;

const newTag = (): string => randomBytes(16).toString('hex');
const digestOf = (...parts: readonly unknown[]): string => createHash('sha256').update(JSON.stringify(parts)).digest('hex');

function makeContext(engine: ContextMaker, spec: ContextSpec, what: string): Context {
  try {
    return engine.context(spec);
  } catch (error) {
    throw new TlsPoolError('IDENTITY_BAD', { text: `${what}: ${(error as Error).message}`, cause: error });
  }
}

function wipe(material: Material): void {
  for (const { key } of material.keyPairs) key.fill(0);
}

interface Build { readonly engine: ContextMaker; readonly trust: DefaultTrust | undefined; readonly previous: Previous; readonly nowMs: number }

function parseLeaves(material: Material, nowMs: number): X509Certificate[] {
  return material.keyPairs.map(({ chain }, index) => {
    const file = material.certificateFiles[index] ?? 'certificate';
    const { leaf, certificates } = parseCertificates(chain, file);
    checkDates(certificates, file, nowMs);
    return leaf;
  });
}

function clientContextOf(build: Build, spec: ContextSpec, context: Context, leaves: readonly X509Certificate[], what: string): Context | undefined {
  // The pool's own roots must not become roots for *client* certificates, so they live in a context of their own.
  if (spec.trust !== undefined || build.trust === undefined) return context;
  // A big trust store per identity costs memory; certificates for servers only are of no use to a client.
  if (leaves.length > 0 && !leaves.some(mayBeClient)) return undefined;
  return makeContext(build.engine, { ...spec, trust: build.trust.pem, clientAuth: 'none', ticketTag: newTag() }, what);
}

type Signatures = Pick<Entry, 'signature' | 'ownSignature'>;

function signaturesOf({ trust }: Build, settings: IdentitySettings, material: Material): Signatures {
  const { policy, clientAuth, peers, names, isDefault, ticketLifetimeS, source } = settings;
  const ownSignature = digestOf(material.digest, policy, clientAuth, peers, names, isDefault, ticketLifetimeS, source.description);
  return { ownSignature, signature: digestOf(ownSignature, material.trust === undefined ? trust?.digest : '') };
}

function makeEntry(build: Build, settings: IdentitySettings, material: Material, signatures: Signatures): Entry {
  const { localid, policy, clientAuth, peers, ticketLifetimeS, isDefault, source } = settings;
  const what = `identity ${localid} (${source.description})`;
  if (clientAuth !== 'none' && material.trust === undefined) {
    throw new TlsPoolError('IDENTITY_BAD', { text: `${what}: clientAuth ${clientAuth} needs roots to check client certificates against; add ca.crt (or "trust"), or set clientAuth to none` });
  }
  const leaves = parseLeaves(material, build.nowMs);
  checkPeerRules(settings, leaves, what);
  const names = servedNames(settings.names, leaves, what);
  const before = build.previous.entries.get(localid);
  // Digest covers certificates and trust, and the rules decide who may resume. Any change makes a new random tag: tickets from before no longer open.
  const ticketKey = digestOf(material.digest, policy, clientAuth, peers);
  const ticketTag = before?.ticketKey === ticketKey ? before.ticketTag : newTag();
  const trustRoots = material.trust === undefined ? 0 : parseTrust(material.trust, source.description).certificates.length;
  const shown = { localid, names, source: source.description, policy, clientAuth, isDefault, certificates: leaves.map(summarize), trustRoots };
  const lastRevision = build.previous.revisions.get(localid) ?? 0;
  const rest = { ...signatures, ticketKey, ticketTag, leaves };
  if (material.isLocked === true) {
    // Nothing new is in use yet: the revision that was goes on being the last one.
    const summary = { ...shown, revision: lastRevision, locked: true };
    return { ...rest, published: { settings, revision: lastRevision, names, locked: 'all', summary }, canServe: !isForClientRoleOnly(settings) };
  }
  const revision = lastRevision + 1;
  const spec: ContextSpec = {
    ...presets[policy], localid, revision, keyPairs: material.keyPairs, ...(material.trust === undefined ? {} : { trust: material.trust }),
    clientAuth, ...(peers === undefined ? {} : { peers }), ticketLifetimeS, ticketTag,
  };
  const context = makeContext(build.engine, spec, what);
  const clientContext = clientContextOf(build, spec, context, leaves, what);
  return {
    ...rest, published: { settings, revision, names, context, summary: { ...shown, revision } }, canServe: leaves.length > 0 && !isForClientRoleOnly(settings),
    ...(clientContext === undefined ? {} : { clientContext }),
  };
}

/** The pool's own trust has changed, and there is no key to make a context for TLS clients with: what serves goes on, and old trust is not used any longer. */
function lockedForClients({ clientContext, published, ...rest }: Entry, settings: IdentitySettings, signatures: Signatures): Entry {
  if (clientContext === undefined) return { ...rest, ...signatures, published: { ...published, settings } };
  return { ...rest, ...signatures, published: { ...published, settings, locked: 'client', summary: { ...published.summary, locked: true } } };
}

async function buildEntry(build: Build, settings: IdentitySettings, pin?: Buffer): Promise<Entry> {
  const material = await settings.source.load(pin);
  try {
    const { localid, priorRevisions } = settings;
    const signatures = signaturesOf(build, settings, material);
    const before = build.previous.entries.get(localid);
    if (before === undefined || pin !== undefined) return makeEntry(build, settings, material, signatures);
    // What runs already is not refused for having expired meanwhile: that is a warning (expiring in store.ts). What was unlocked stays so.
    if (before.signature !== signatures.signature) {
      const isOpen = before.published.context !== undefined;
      return material.isLocked === true && isOpen && before.ownSignature === signatures.ownSignature ? lockedForClients(before, settings, signatures) : makeEntry(build, settings, material, signatures);
    }
    // A new floor is put in force without a new revision: that would end the sessions which have nothing wrong with them.
    return before.published.settings.priorRevisions === priorRevisions ? before : { ...before, published: { ...before.published, settings } };
  } finally {
    wipe(material);
  }
}

function anonymousContext({ engine, trust, previous }: Build): Context {
  if (previous.anonymous !== undefined && previous.trust?.digest === trust?.digest) return previous.anonymous;
  return makeContext(engine, {
    ...presets.intermediate, localid: '', revision: 0, keyPairs: [], ...(trust === undefined ? {} : { trust: trust.pem }),
    clientAuth: 'none', ticketLifetimeS: 3600, ticketTag: newTag(),
  }, 'the pool\'s own trust');
}

export function namedOf({ published: { settings, names } }: Entry): Named {
  return { localid: settings.localid, names, isConfigured: settings.names.length > 0 };
}

function ambiguousNames(entries: ReadonlyMap<string, Entry>): NameTable['ambiguous'] {
  return nameTable([...entries.values()].filter(({ canServe }) => canServe).map(namedOf)).ambiguous;
}

/** The draft that is in use, with this identity read again and opened by the PIN, which stays the caller's. Throws IDENTITY_BAD, CONFIG_BAD, WrongPinError; then nothing has changed. */
export async function makeUnlocked(build: Build, now: Draft, settings: IdentitySettings, pin: Buffer): Promise<Draft> {
  const { localid } = settings;
  const entries = new Map(now.entries).set(localid, await buildEntry(build, settings, pin));
  return { ...now, entries, ambiguous: ambiguousNames(entries), changed: [localid], isTrustChanged: false };
}

/** Reads and checks everything. Throws IDENTITY_BAD or CONFIG_BAD; then nothing has changed. */
export async function makeDraft(build: Build, settings: readonly IdentitySettings[]): Promise<Draft> {
  const { previous, trust } = build;
  const defaults = settings.filter(({ isDefault }) => isDefault);
  if (defaults.length > 1) throw new TlsPoolError('CONFIG_BAD', { text: `${defaults.map(({ localid }) => localid).join(' and ')} are both the default identity; only one can be` });
  const entries = new Map<string, Entry>();
  for (const one of settings) entries.set(one.localid, await buildEntry(build, one));
  const ambiguous = ambiguousNames(entries);
  const changed = [...entries].filter(([localid, entry]) => previous.entries.get(localid) !== entry).map(([localid]) => localid);
  changed.push(...[...previous.entries.keys()].filter((localid) => !entries.has(localid)));
  return {
    entries, ambiguous, changed, anonymous: anonymousContext(build), isTrustChanged: previous.trust?.digest !== trust?.digest,
    ...(trust === undefined ? {} : { trust }),
  };
}
