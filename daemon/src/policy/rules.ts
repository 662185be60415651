/** The access rules of the configuration as an AccessPolicy. Fails closed: what no rule grants is refused. */
import { self } from 'tlspool-common/files';
import type { AccessRule } from '../config/types.js';
import type { AccessPolicy, Client, Permission } from './access.js';
import { matchesGlob } from './glob.js';

export interface AccessSettings {
  readonly rules: readonly AccessRule[];
  readonly sessionsPerClient: number;
}

function matches(rule: AccessRule, client: Client): boolean {
  // A rule without any condition would match everybody; the configuration refuses it, and so does this.
  if (rule.uids === undefined && rule.gids === undefined && rule.units === undefined) return false;
  if (rule.uids !== undefined && !rule.uids.includes(client.uid)) return false;
  if (rule.gids !== undefined && !rule.gids.some((gid) => gid === client.gid || client.groups.includes(gid))) return false;
  const { unit } = client;
  return rule.units === undefined || (unit !== undefined && rule.units.some((glob) => matchesGlob(glob, unit)));
}

/** An AccessPolicy whose rules can be replaced by a reload; decisions are made on the rules of the moment. */
export class RuleAccess implements AccessPolicy {
  #settings: AccessSettings;
  readonly #ownUid: number;

  /** `ownUid` is the daemon's; it and root may do everything: both can read the key files anyway. */
  constructor(settings: AccessSettings, ownUid: number = self().uid) {
    this.#settings = settings;
    this.#ownUid = ownUid;
  }

  /** Puts other rules in force. */
  replace(settings: AccessSettings): void {
    this.#settings = settings;
  }

  get sessionsPerClient(): number {
    return this.#settings.sessionsPerClient;
  }

  mayConnect(client: Client): boolean {
    return this.#isTrusted(client) || this.#settings.rules.some((rule) => matches(rule, client));
  }

  may(client: Client, permission: Permission): boolean {
    return this.#isTrusted(client) || this.#settings.rules.some((rule) => rule.permissions.includes(permission) && matches(rule, client));
  }

  mayUse(client: Client, localid: string, role: 'server' | 'client'): boolean {
    return this.#isTrusted(client) || this.#settings.rules.some((rule) =>
      rule.permissions.includes(role) && matches(rule, client) && rule.identities.some((glob) => matchesGlob(glob, localid)));
  }

  #isTrusted(client: Client): boolean {
    return client.uid === 0 || client.uid === this.#ownUid;
  }
}
