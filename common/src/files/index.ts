/** Files that decide about others: who may have written them, and when they change. */
export { unsafeFolderReason, unsafePlaceReason, type Place } from './place.js';
export { openReason, self, unsafeReason, type FileKind, type Owner } from './owner.js';
export { watchedFolders, watchPaths, type WatchTarget } from './watch.js';
