/** Identities: where credentials come from, how they are checked, and what is published. */
export { checkCredentials, type CheckReport } from './check.js';
export { OnTheFly, type OnTheFlyParts, type Signer } from './onthefly.js';
export { Reloader, type ReloadLog, type ReloaderParts } from './reload.js';
export { Store, type Expiry, type StoreParts } from './store.js';
export { directorySource } from './directory.js';
export { pemFilesSource, type PemFiles } from './pemfiles.js';
export { pkcs12Source, type Pkcs12Files } from './pkcs12.js';
export { Choices } from './choices.js';
export { WrongPinError } from './sealed.js';
export type { IdentitySettings, IdentitySource, IdentityStore, LockedIdentity, Material, PolicyName, Published, ReloadResult, UnlockOutcome } from './types.js';
