/**
 * Watches files and folders for every way in which they get replaced: written in place, renamed over, or reached by a
 * symbolic link, anywhere on the path, that is swapped. Watching is on folders: a watch on a file dies with its inode.
 * Fails open by nature (a network file system reports nothing), which is why the reloader also looks by itself.
 */
import { readlinkSync, watch, type FSWatcher } from 'node:fs';
import path from 'node:path';

/** A file, or a folder of which every entry counts. */
export type WatchTarget = { readonly file: string } | { readonly folder: string };

/** SYMLOOP_MAX; more is a loop. */
const maxLinks = 40;

function readLink(file: string): string | undefined {
  try {
    return readlinkSync(file);
  } catch {
    return undefined;
  }
}

/** Adds each (folder, entry) through which `target` is reached; replacing any of these entries replaces the target. */
function addPath(watched: Map<string, Set<string> | 'all'>, target: string): string {
  let links = 0;
  let rest = path.resolve(target).split('/').slice(1);
  let at = '/';
  for (let name = rest.shift(); name !== undefined; name = rest.shift()) {
    const full = path.join(at, name);
    const link = readLink(full);
    if (link !== undefined && links++ < maxLinks) {
      addEntry(watched, at, name);
      rest = [...path.resolve(at, link).split('/').slice(1), ...rest];
      at = '/';
    } else {
      if (rest.length === 0) addEntry(watched, at, name);
      at = full;
    }
  }
  return at;
}

function addEntry(watched: Map<string, Set<string> | 'all'>, folder: string, name: string): void {
  const entries = watched.get(folder);
  if (entries === 'all') return;
  if (entries === undefined) watched.set(folder, new Set([name]));
  else entries.add(name);
}

/** Folder -> the names in it that count, for all targets. */
export function watchedFolders(targets: readonly WatchTarget[]): ReadonlyMap<string, ReadonlySet<string> | 'all'> {
  const watched = new Map<string, Set<string> | 'all'>();
  for (const target of targets) {
    if ('file' in target) addPath(watched, target.file);
    else watched.set(addPath(watched, target.folder), 'all');
  }
  return watched;
}

/**
 * Calls `changed` whenever a target may have been replaced; often more than once. Folders that do not exist are taken up
 * when something above them that is watched changes. Never throws and never keeps the process alive.
 */
export function watchPaths(targets: readonly WatchTarget[], changed: () => void): { close(): void } {
  const watchers = new Map<string, FSWatcher>();
  let folders: ReadonlyMap<string, ReadonlySet<string> | 'all'> = new Map();
  let closed = false;

  function drop(folder: string): void {
    watchers.get(folder)?.close();
    watchers.delete(folder);
  }
  function onEvent(folder: string, name: string | null): void {
    const entries = folders.get(folder);
    if (closed || entries === undefined || (entries !== 'all' && name !== null && !entries.has(name))) return;
    // The folder itself may have been replaced: its watch would stay with the old inode.
    if (name === path.basename(folder)) drop(folder);
    arm();
    changed();
  }
  function arm(): void {
    folders = watchedFolders(targets);
    for (const folder of watchers.keys()) if (!folders.has(folder)) drop(folder);
    for (const folder of folders.keys()) {
      if (watchers.has(folder)) continue;
      try {
        const watcher = watch(folder, { persistent: false }, (_event, name) => onEvent(folder, name));
        watcher.on('error', () => drop(folder));
        watchers.set(folder, watcher);
      } catch {
        // Missing or not readable now; the reloader's own look finds it when it comes.
      }
    }
  }

  arm();
  return {
    close() {
      closed = true;
      for (const folder of [...watchers.keys()]) drop(folder);
    },
  };
}
