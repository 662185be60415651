/** The file with the number of the process, which C programs read by `daemon_pidfile`. */
import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { TlsPoolError } from 'libtlspool/protocol';

/**
 * Writes it anew, whatever is there: never through a link, never half. The result removes it unless it is another process' by then; to be called once.
 * Throws SYSTEM.
 */
export function writePidFile(file: string): () => void {
  const text = `${process.pid}\n`;
  const fresh = `${file}.${process.pid}`;
  try {
    rmSync(fresh, { force: true });
    writeFileSync(fresh, text, { mode: 0o644, flag: 'wx' });
    renameSync(fresh, file);
  } catch (error) {
    rmSync(fresh, { force: true });
    throw new TlsPoolError('SYSTEM', { text: `the pid file ${file} cannot be written: ${String(error)}; give another path by v2.pidFile`, cause: error });
  }
  return () => {
    try {
      if (readFileSync(file, 'utf8') === text) rmSync(file);
    } catch {
      // Somebody has removed it already.
    }
  };
}
