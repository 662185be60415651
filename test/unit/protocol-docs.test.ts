import { execFileSync } from 'node:child_process';
import path from 'node:path';

describe('docs/protocol.md', () => {
  it('has the tables that the message table and the error table give', () => {
    execFileSync(process.execPath, [path.resolve(import.meta.dirname, '../../../scripts/protocol-tables.mjs'), '--check'], { stdio: 'pipe' });
  });
});
