/** Which error of the operating system is behind an error. By number: texts have paths in them, and paths may be called anything. */
import { getSystemErrorName } from 'node:util';

/** Its name, such as ENOENT; undefined where no system call failed. For errors of this library and of Node. */
export function errnoName(error: unknown): string | undefined {
  const errno = error instanceof Error && 'errno' in error ? error.errno : undefined;
  if (typeof errno !== 'number' || !Number.isInteger(errno) || errno >= 0) return undefined;
  try {
    return getSystemErrorName(errno);
  } catch {
    return undefined; // a number that Node has no name for
  }
}

/** Is it one of these? */
export function isErrno(error: unknown, ...names: readonly string[]): boolean {
  const name = errnoName(error);
  return name !== undefined && names.includes(name);
}
