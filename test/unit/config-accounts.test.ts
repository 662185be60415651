/** Names of users and groups in configurations. */
import assert from 'node:assert/strict';
import { lookupAccount, lookupId } from 'tlspool-common/config';

const nobodies = ['no-such-user-here', '', '--help', 'root:x', 'a\nb', '-1', '1e3', '99999999999'];

describe('users and groups of the host', () => {
  it('a name leads to its number, in its own database', () => {
    assert.equal(lookupId('passwd', 'root'), 0);
    assert.equal(lookupId('group', 'root'), 0);
    // Debian has a group of this name, and no user.
    assert.equal(lookupId('group', 'adm'), 4);
    assert.equal(lookupId('passwd', 'adm'), undefined);
  });

  it('a number is itself up to 2^32 - 2, written either way, whether anybody has it or not; the next one means "no change" to the kernel', () => {
    for (const id of [0, 4_000_000_000, 0xffff_fffe]) {
      assert.equal(lookupId('passwd', id), id);
      assert.equal(lookupId('passwd', String(id)), id);
    }
    for (const id of [0xffff_ffff, -1, 0.5]) assert.equal(lookupId('passwd', id), undefined);
    assert.equal(lookupId('passwd', String(0xffff_ffff)), undefined);
  });

  it('an account has the number of the user and that of its own group, by name and by number', () => {
    const nobody = lookupAccount('nobody');
    assert.equal(nobody?.uid, 65_534);
    assert.deepEqual(lookupAccount('root'), { name: 'root', uid: 0, gid: 0 });
    assert.deepEqual(lookupAccount('65534'), { ...nobody, name: '65534' });
  });

  it('of a number that nobody has there is no account, because nobody knows its group', () => {
    assert.equal(lookupAccount('4000000000'), undefined);
  });

  it('what is no name is not looked up', () => {
    for (const name of nobodies) {
      assert.equal(lookupAccount(name), undefined, name);
      assert.equal(lookupId('passwd', name), undefined, name);
    }
  });
});
