// Child processes of the scripts: run to the end, and say clearly what went wrong.
import { spawn } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

/** The checkout that this script belongs to. */
export const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');

/** An error whose text is all that the user needs; scripts print it without a stack. */
export class ScriptError extends Error {}

/**
 * Runs a program to its end. With `quiet` its output is kept and only shown when it fails.
 * `holding` are descriptors that it gets as 3 and up and keeps open for as long as it runs, such as that of a lock.
 * Resolves with stdout (quiet) or an empty text; throws ScriptError when it fails.
 */
export function run(command, args, { cwd = root, env = process.env, quiet = false, holding = [] } = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { cwd, env, stdio: ['ignore', quiet ? 'pipe' : 'inherit', quiet ? 'pipe' : 'inherit', ...holding] });
    const out = [];
    const both = [];
    child.stdout?.on('data', (chunk) => { out.push(chunk); both.push(chunk); });
    child.stderr?.on('data', (chunk) => both.push(chunk));
    child.once('error', (error) => reject(new ScriptError(`${command} cannot be started: ${error.message}`)));
    child.once('close', (code, signal) => {
      if (code === 0) return resolve(Buffer.concat(out).toString());
      const log = Buffer.concat(both).toString().trimEnd().split('\n').slice(-60).join('\n');
      const words = [path.basename(command), ...args].join(' ');
      const line = words.length > 200 ? `${words.slice(0, 200)}...` : words;
      reject(new ScriptError(`${log}${log === '' ? '' : '\n'}${line}: ${signal === null ? `exit code ${code}` : `ended by ${signal}`}`));
    });
  });
}

/** Full path of a program on PATH, or undefined. */
export function findProgram(name) {
  if (name.includes('/')) return isExecutable(name) ? name : undefined;
  return (process.env.PATH ?? '').split(path.delimiter).filter((folder) => folder !== '')
    .map((folder) => path.join(folder, name)).find(isExecutable);
}

function isExecutable(file) {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** Runs `main` and turns a failure into a line on stderr and exit code 1. */
export async function script(main) {
  try {
    await main();
  } catch (error) {
    console.error(error instanceof ScriptError ? error.message : error);
    process.exitCode = 1;
  }
}
