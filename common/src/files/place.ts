/**
 * Can others put another file where one is believed? A folder that others can write lets them swap what is in it for a link to any other file of root's,
 * which looks good by itself: `ca.crt` for the roots of the whole world, say. Fails closed.
 */
import { lstatSync, statSync, type Stats } from 'node:fs';
import path from 'node:path';
import { openReason, self, type Owner } from './owner.js';
import { watchedFolders } from './watch.js';

/** What decides about a folder, and who has made the entry in it (which may be a link). */
export interface Place { readonly folder: Pick<Stats, 'mode' | 'uid' | 'gid'>; readonly entryUid: number }

const sticky = 0o1000;

/** Why the entry `name` of a folder with these attributes could be another one's, or undefined when it could not. */
export function unsafeFolderReason(folder: string, name: string, { folder: stat, entryUid }: Place, owner: Owner = self()): string | undefined {
  const isBelieved = (uid: number): boolean => uid === 0 || uid === owner.uid;
  if (!isBelieved(stat.uid)) {
    return `${folder} belongs to uid ${stat.uid}, who can put anything in the place of ${name}; it must belong to root or to uid ${owner.uid}: chown ${owner.uid} ${folder}`;
  }
  const who = (stat.mode & 0o002) !== 0 ? 'everybody' : (stat.mode & 0o020) !== 0 && stat.gid !== 0 && stat.gid !== owner.gid ? `the group ${stat.gid}` : undefined;
  if (who === undefined) return undefined;
  // Kubernetes mounts Secrets like this, as /tmp is: others can add entries, but not replace those of root.
  if ((stat.mode & sticky) !== 0 && isBelieved(entryUid)) return undefined;
  return `${folder} has mode 0${(stat.mode & 0o7777).toString(8)}: ${who} can put anything in the place of ${name}; run: chmod go-w ${folder}`;
}

/** The same for a file or folder that is there, in the folder that it is in and those of all links on the way to it. */
export function unsafePlaceReason(file: string, owner: Owner = self()): string | undefined {
  for (const [folder, names] of watchedFolders([{ file }])) {
    for (const name of names === 'all' ? [] : names) {
      const entry = path.join(folder, name);
      try {
        const reason = unsafeFolderReason(folder, name, { folder: statSync(folder), entryUid: lstatSync(entry).uid }, owner);
        if (reason !== undefined) return reason;
      } catch (error) {
        return openReason(entry, error);
      }
    }
  }
  return undefined;
}
