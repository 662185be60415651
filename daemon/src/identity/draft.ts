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
  /** What resumption depends on, and the random tag of the ticket keys for it. */
  readonly ticketKey: string;
  readonly ticketTag: string;
  /** False for an identity without a certificate of its own. */
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

function makeEntry(build: Build, settings: IdentitySettings, material: Material, signature: string): Entry {
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
  const revision = (build.previous.revisions.get(localid) ?? 0) + 1;
  const spec: ContextSpec = {
    ...presets[policy], localid, revision, keyPairs: material.keyPairs, ...(material.trust === undefined ? {} : { trust: material.trust }),
    clientAuth, ...(peers === undefined ? {} : { peers }), ticketLifetimeS, ticketTag,
  };
  const context = makeContext(build.engine, spec, what);
  const clientContext = clientContextOf(build, spec, context, leaves, what);
  const trustRoots = material.trust === undefined ? 0 : parseTrust(material.trust, source.description).certificates.length;
  const summary = { localid, names, revision, source: source.description, policy, clientAuth, isDefault, certificates: leaves.map(summarize), trustRoots };
  return {
    published: { settings, revision, names, context, summary }, signature, ticketKey, ticketTag, canServe: leaves.length > 0 && !isForClientRoleOnly(settings), leaves,
    ...(clientContext === undefined ? {} : { clientContext }),
  };
}

async function buildEntry(build: Build, settings: IdentitySettings): Promise<Entry> {
  const material = await settings.source.load();
  try {
    const { localid, policy, clientAuth, peers, names, isDefault, ticketLifetimeS, priorRevisions, source } = settings;
    const signature = digestOf(material.digest, policy, clientAuth, peers, names, isDefault, ticketLifetimeS, source.description, material.trust === undefined ? build.trust?.digest : '');
    const before = build.previous.entries.get(localid);
    // What runs already is not refused for having expired meanwhile: that is a warning (expiring in store.ts).
    if (before?.signature !== signature) return makeEntry(build, settings, material, signature);
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

/** Reads and checks everything. Throws IDENTITY_BAD or CONFIG_BAD; then nothing has changed. */
export async function makeDraft(build: Build, settings: readonly IdentitySettings[]): Promise<Draft> {
  const { previous, trust } = build;
  const defaults = settings.filter(({ isDefault }) => isDefault);
  if (defaults.length > 1) throw new TlsPoolError('CONFIG_BAD', { text: `${defaults.map(({ localid }) => localid).join(' and ')} are both the default identity; only one can be` });
  const entries = new Map<string, Entry>();
  for (const one of settings) entries.set(one.localid, await buildEntry(build, one));
  const { ambiguous } = nameTable([...entries.values()].filter(({ canServe }) => canServe).map(namedOf));
  const changed = [...entries].filter(([localid, entry]) => previous.entries.get(localid) !== entry).map(([localid]) => localid);
  changed.push(...[...previous.entries.keys()].filter((localid) => !entries.has(localid)));
  return {
    entries, ambiguous, changed, anonymous: anonymousContext(build), isTrustChanged: previous.trust?.digest !== trust?.digest,
    ...(trust === undefined ? {} : { trust }),
  };
}
