/** The revision floor: which sessions may live on after their identity was published anew. */
import type { Published } from '../identity/types.js';
import type { Profile } from './profile.js';
import type { Session } from './session.js';

type Floored = Pick<Published, 'revision'> & { readonly settings: Pick<Published['settings'], 'localid' | 'priorRevisions'> };

export class RevisionFloors {
  #lowest: ReadonlyMap<string, number> = new Map();

  /** Takes over what is published now. Identities without `priorRevisions`, and those that are gone, have no floor. */
  update(published: readonly Floored[]): void {
    this.#lowest = new Map(published.flatMap(({ revision, settings: { localid, priorRevisions } }): [string, number][] =>
      (priorRevisions === undefined ? [] : [[localid, revision - priorRevisions]])));
  }

  /** Is this session of a revision that may not live on? For those that are established while their identity is published anew, too. */
  isBelow({ localid, revision }: Pick<Profile, 'localid' | 'revision'>): boolean {
    const lowest = this.#lowest.get(localid);
    return lowest !== undefined && revision < lowest;
  }

  /** Those that are to be closed now. One in its handshake has no revision yet: it is looked at when it is established. */
  below(sessions: Iterable<Session>): readonly Session[] {
    if (this.#lowest.size === 0) return [];
    return [...sessions].filter(({ profile, state }) => profile !== undefined && state !== 'closing' && this.isBelow(profile));
  }
}
