/** Files of the development PKI that belong together: all of them, or none. */
import assert from 'node:assert/strict';
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import fs from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { initCa, issue } from 'tlspool/dist/pki/index.js';

describe('development PKI: writing', () => {
  let folder: string;
  const { open, link } = fs;
  beforeEach(() => { folder = mkdtempSync(path.join(tmpdir(), 'pkiw-')); });
  afterEach(() => {
    Object.assign(fs, { open, link });
    syncBuiltinESMExports();
    rmSync(folder, { recursive: true, force: true });
  });
  const at = (...parts: string[]) => path.join(folder, ...parts);

  /** The disk is full for files whose temporary names contain this. */
  function fullFor(part: string): void {
    fs.open = ((file: string, ...rest: [string, number]) => {
      if (rest[0] === 'wx' && path.basename(file).includes(part)) return Promise.reject(Object.assign(new Error('no space left on device'), { code: 'ENOSPC', errno: -28, syscall: 'open' }));
      return open(file, ...rest);
    }) as typeof fs.open;
    syncBuiltinESMExports();
  }
  function makeRoom(): void {
    fs.open = open;
    syncBuiltinESMExports();
  }
  const belongs = (certificate: string, key: string): boolean => new X509Certificate(readFileSync(certificate)).checkPrivateKey(createPrivateKey(readFileSync(key)));

  for (const name of ['ca.crt', 'ca.key']) {
    it(`a disk that is full for ${name} leaves no half of an authority, and there is one when there is room`, async () => {
      fullFor(name);
      await assert.rejects(initCa(at('ca')), { code: 'SYSTEM', message: new RegExp(`${name}.*ENOSPC`) });
      assert.deepEqual(readdirSync(at('ca')), []);
      makeRoom();
      assert.equal((await initCa(at('ca'))).created, true);
      assert.deepEqual(readdirSync(at('ca')).sort(), ['ca.crt', 'ca.key']);
    });
  }

  it('of several that are made in one folder at once one is made, and it is whole', async () => {
    const made = await Promise.allSettled(Array.from({ length: 6 }, () => initCa(at('ca'))));
    assert.equal(made.filter((one) => one.status === 'fulfilled' && one.value.created).length, 1);
    for (const one of made) if (one.status === 'rejected') assert.equal((one.reason as { code: string }).code, 'BAD_ARGUMENT');
    assert.deepEqual(readdirSync(at('ca')).sort(), ['ca.crt', 'ca.key']);
    assert.ok(belongs(at('ca/ca.crt'), at('ca/ca.key')));
  });

  it('a file system without hard links will do', async () => {
    fs.link = () => Promise.reject(Object.assign(new Error('not supported'), { code: 'EPERM' }));
    syncBuiltinESMExports();
    assert.equal((await initCa(at('ca'))).created, true);
    assert.deepEqual(readdirSync(at('ca')).sort(), ['ca.crt', 'ca.key']);
    assert.ok(belongs(at('ca/ca.crt'), at('ca/ca.key')));
  });

  for (const name of ['tls.key', 'tls.crt', 'ca.crt']) {
    it(`a disk that is full for ${name} leaves an identity as it was, key and certificate together`, async () => {
      await initCa(at('ca'));
      const out = at('id');
      await issue(at('ca'), { name: 'a.example', out });
      const before = readdirSync(out).sort().map((file) => [file, readFileSync(path.join(out, file), 'utf8')]);
      fullFor(name);
      await assert.rejects(issue(at('ca'), { name: 'a.example', out }), { code: 'SYSTEM', message: /ENOSPC/ });
      assert.deepEqual(readdirSync(out).sort().map((file) => [file, readFileSync(path.join(out, file), 'utf8')]), before);
      makeRoom();
      await issue(at('ca'), { name: 'a.example', out });
      assert.notEqual(readFileSync(path.join(out, 'tls.key'), 'utf8'), before.find(([file]) => file === 'tls.key')?.[1]);
      assert.ok(belongs(path.join(out, 'tls.crt'), path.join(out, 'tls.key')));
    });
  }
});
