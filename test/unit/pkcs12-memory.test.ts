/** Not among the tests that run under sanitizers: the shadow memory of those has terabytes to look through. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Program, scanMemory } from '../support/index.js';
import { makeCert } from './identity-support.js';

describe('PKCS#12 in memory', () => {
  let folder: string;
  beforeEach(() => { folder = mkdtempSync(path.join(tmpdir(), 'p12-')); });
  afterEach(() => { rmSync(folder, { recursive: true }); });

  it('when the file is open, neither its password nor what was in it is left, but what the caller has', async () => {
    const password = randomBytes(24).toString('hex');
    const leaf = await makeCert('leaf', { dns: ['a.example'] });
    const write = (name: string, content: string): void => { writeFileSync(path.join(folder, name), content, { mode: 0o600 }); };
    write('key.pem', leaf.keyPem);
    write('crt.pem', leaf.pem);
    write('password', `${password}\n`);
    execFileSync('openssl', ['pkcs12', '-export', '-inkey', 'key.pem', '-in', 'crt.pem', '-out', 'id.p12', '-passout', 'file:password'], { cwd: folder });
    const program = new Program(process.execPath, ['--input-type=module', '--eval', `
      import { pkcs12Source } from ${JSON.stringify(import.meta.resolve('tlspool/dist/identity/index.js'))};
      const { keyPairs } = await pkcs12Source({ file: 'id.p12', passwordFile: 'password' }).load();
      globalThis.kept = Buffer.from(keyPairs[0].key.subarray(40, 80));
      keyPairs[0].key.fill(0);
      console.log('done');
      setInterval(() => {}, 1000);`], { cwd: folder });
    await program.output(/^done$/mu, 'stdout');
    const { d = '' } = leaf.key.export({ format: 'jwk' });
    const body = leaf.keyPem.split('\n').slice(1, -2).join('\n');
    const ofTheThread = [
      { name: 'password', octets: Buffer.from(password.slice(0, 24)) }, { name: 'its end', octets: Buffer.from(password.slice(24)) },
      { name: 'password in BMPString (RFC 7292 appendix B.1)', octets: Buffer.from(`\0${password}`.split('').join('\0').slice(2)) },
      { name: 'private number', octets: Buffer.from(d, 'base64url').subarray(0, 16) },
    ];
    // V8 keeps the pages of threads that have ended from there on (docs/security.md).
    const keepsPages = Number(process.versions.node.split('.')[0]) >= 24;
    const found = scanMemory(program.pid, [
      ...keepsPages ? [] : ofTheThread, { name: 'key as PEM', octets: Buffer.from(body.slice(80, 120)) }, { name: 'what the caller has', octets: Buffer.from(leaf.keyPem.slice(40, 70)) },
    ]);
    assert.deepEqual(found, ['what the caller has']);
    program.kill('SIGKILL');
    await program.ended;
  });
});
