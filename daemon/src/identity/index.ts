/** Identities: where credentials come from, how they are checked, and what is published. */
export { checkCredentials, type CheckReport } from './check.js';
export { Reloader, type ReloadLog, type ReloaderParts } from './reload.js';
export { Store, type Expiry, type StoreParts } from './store.js';
export { directorySource } from './directory.js';
export { pemFilesSource, type PemFiles } from './pemfiles.js';
export { pkcs12Source, type Pkcs12Files } from './pkcs12.js';
export type { IdentitySettings, IdentitySource, IdentityStore, Material, PolicyName, Published, ReloadResult } from './types.js';
