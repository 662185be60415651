/** Where believed files are: nobody else may be able to put another one there. */
import assert from 'node:assert/strict';
import { chmodSync, lchownSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { loadConfig } from 'tlspool/dist/config/index.js';
import { checkCredentials, directorySource } from 'tlspool/dist/identity/index.js';
import { readKeyFile, readPublicFile } from 'tlspool/dist/identity/files.js';
import { unsafeFolderReason } from 'tlspool-common/files';
import { makeCert, writeFolder, type Cert } from './identity-support.js';

const isRoot = process.geteuid?.() === 0;
const nobody = 65_534;

describe('places of believed files', () => {
  let folder: string;
  let leaf: Cert;
  before(async () => { leaf = await makeCert('leaf', { dns: ['a.example'] }); });
  beforeEach(() => { folder = mkdtempSync(path.join(tmpdir(), 'place-')); });
  afterEach(() => { rmSync(folder, { recursive: true, force: true }); });
  const at = (...parts: string[]) => path.join(folder, ...parts);
  const pair = () => ({ 'tls.crt': leaf.pem, 'tls.key': leaf.keyPem, 'ca.crt': leaf.pem });

  const owner = { uid: 500, gid: 600 };
  const cases: [title: string, folder: { mode: number; uid: number; gid: number }, entryUid: number, safe: boolean][] = [
    ['root\'s folder', { mode: 0o755, uid: 0, gid: 0 }, 0, true],
    ['the pool\'s folder', { mode: 0o700, uid: 500, gid: 9 }, 500, true],
    ['somebody else\'s folder', { mode: 0o755, uid: 501, gid: 600 }, 0, false],
    ['a folder that the pool\'s group can write', { mode: 0o775, uid: 0, gid: 600 }, 0, true],
    ['a folder that root\'s group can write', { mode: 0o775, uid: 0, gid: 0 }, 0, true],
    ['a folder that another group can write', { mode: 0o775, uid: 0, gid: 601 }, 0, false],
    ['a folder that everybody can write', { mode: 0o757, uid: 0, gid: 0 }, 0, false],
    ['root\'s entry of a sticky folder that everybody can write', { mode: 0o1777, uid: 0, gid: 0 }, 0, true],
    ['the pool\'s entry of a sticky folder that everybody can write', { mode: 0o1777, uid: 0, gid: 0 }, 500, true],
    ['somebody else\'s entry of a sticky folder that everybody can write', { mode: 0o1777, uid: 0, gid: 0 }, 501, false],
    ['somebody else\'s entry of a sticky folder that only root can write', { mode: 0o1755, uid: 0, gid: 0 }, 501, true],
  ];
  for (const [title, stat, entryUid, safe] of cases) {
    it(`${title} is ${safe ? 'taken' : 'refused'}`, () => {
      assert.equal(unsafeFolderReason('/f', 'tls.crt', { folder: stat, entryUid }, owner) === undefined, safe);
    });
  }

  it('a folder of credentials that everybody can write is refused, with the cure, and taken after that', async () => {
    writeFolder(at('id'), pair());
    chmodSync(at('id'), 0o777);
    await assert.rejects(directorySource(at('id')).load(), { code: 'IDENTITY_BAD', message: /id has mode 0777: everybody can put anything in the place of .*chmod go-w .*\/id$/ });
    chmodSync(at('id'), 0o755);
    assert.equal((await directorySource(at('id')).load()).keyPairs.length, 1);
  });

  it('the layout of a Kubernetes Secret, sticky and for everybody to write, is taken; a link in it of somebody else is not', async function () {
    writeFolder(at('id/..v1'), pair());
    symlinkSync('..v1', at('id/..data'));
    for (const name of Object.keys(pair())) symlinkSync(`..data/${name}`, at('id', name));
    chmodSync(at('id'), 0o1777);
    assert.equal((await directorySource(at('id')).load()).keyPairs.length, 1);
    if (!isRoot) return;
    lchownSync(at('id/ca.crt'), nobody, nobody);
    await assert.rejects(directorySource(at('id')).load(), { code: 'IDENTITY_BAD', message: /everybody can put anything in the place of ca\.crt/ });
  });

  it('every link on the way to a file counts, the last one and those before it', async () => {
    writeFolder(at('safe'), { real: leaf.keyPem });
    mkdirSync(at('open'));
    symlinkSync('../safe', at('open/way'));
    symlinkSync('open/way/real', at('link'));
    assert.equal((await readKeyFile(at('link'))).toString(), leaf.keyPem);
    chmodSync(at('open'), 0o777);
    for (const read of [readKeyFile, readPublicFile]) await assert.rejects(read(at('link')), { code: 'IDENTITY_BAD', message: /open has mode 0777: everybody can put anything in the place of way/ });
  });

  it('identities are not taken from folders that others could have exchanged', async () => {
    writeFolder(at('ids/a'), pair());
    writeFileSync(at('pool.yaml'), 'trust: {roots: [ids/a/ca.crt]}\nidentitiesDirectory: ids\n', { mode: 0o600 });
    assert.deepEqual((await checkCredentials(loadConfig(at('pool.yaml')))).problems, []);
    chmodSync(at('ids'), 0o777);
    assert.match((await checkCredentials(loadConfig(at('pool.yaml')))).problems.join('\n'), /ids has mode 0777: everybody can put anything in the place of a;/);
  });

  it('a configuration in a folder that everybody can write is refused', () => {
    writeFolder(at('etc'), { 'pool.yaml': 'workers: 1\n' });
    assert.equal(loadConfig(at('etc/pool.yaml')).workers, 1);
    chmodSync(at('etc'), 0o777);
    assert.throws(() => loadConfig(at('etc/pool.yaml')), { code: 'CONFIG_BAD', message: /etc has mode 0777: everybody can put anything in the place of pool\.yaml/ });
  });

  it('a link to nowhere among the identities is the one that is named', async () => {
    mkdirSync(at('ids'));
    symlinkSync('nowhere', at('ids/gone'));
    writeFolder(folder, { 'r.pem': leaf.pem, 'pool.yaml': 'trust: {roots: [r.pem]}\nidentitiesDirectory: ids\n' });
    assert.match((await checkCredentials(loadConfig(at('pool.yaml')))).problems.join('\n'), /^identitiesDirectory: .*\/ids\/gone: the file does not exist/);
  });
});
