// Addons built aside, so that the checkout's own build is left alone.
import { copyFileSync, cpSync, mkdirSync, renameSync } from 'node:fs';
import path from 'node:path';

/** Copies what a build of the addon needs into `folder`; earlier objects there stay, for an incremental build. */
export function copyAddon(addon, folder) {
  mkdirSync(folder, { recursive: true });
  cpSync(path.join(addon.folder, 'binding.gyp'), path.join(folder, 'binding.gyp'), { preserveTimestamps: true });
  cpSync(path.join(addon.folder, addon.sources), path.join(folder, addon.sources), { recursive: true, preserveTimestamps: true });
  return folder;
}

/** Puts a binary into a folder that TLSPOOL_ADDON_DIR may name. */
export function place(file, folder) {
  mkdirSync(folder, { recursive: true });
  const target = path.join(folder, path.basename(file));
  copyFileSync(file, `${target}.new`);
  renameSync(`${target}.new`, target);
}
