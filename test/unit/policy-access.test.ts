import assert from 'node:assert/strict';
import fc from 'fast-check';
import type { OwnedFd } from 'libtlspool/native';
import { identifyClient, presets, RuleAccess, type Client, type ClientHost, type Permission } from 'tlspool/dist/policy/index.js';
import { matchesGlob } from 'tlspool/dist/policy/glob.js';
import { parseUnit } from 'tlspool/dist/policy/unit.js';

const client = (fields: Partial<Client> = {}): Client => ({ pid: 9, uid: 1000, gid: 1000, groups: [], ...fields });
const all: readonly Permission[] = ['server', 'client', 'backend', 'operator'];

describe('access rules', () => {
  const granted = (access: RuleAccess, who: Client) => all.filter((permission) => access.may(who, permission));
  const policy = (...rules: ConstructorParameters<typeof RuleAccess>[0]['rules'][number][]) => new RuleAccess({ rules, sessionsPerClient: 5 }, 500);

  it('without rules, root and the pool\'s own user may do everything and nobody else anything', () => {
    const access = policy();
    for (const uid of [0, 500]) {
      assert.ok(access.mayConnect(client({ uid })) && access.mayUse(client({ uid }), 'x', 'server'));
      assert.deepEqual(granted(access, client({ uid })), all);
    }
    for (const uid of [1, 499, 501, 65_534, 4_294_967_294]) {
      assert.equal(access.mayConnect(client({ uid })), false);
      assert.deepEqual(granted(access, client({ uid })), []);
      assert.equal(access.mayUse(client({ uid }), 'x', 'client'), false);
    }
  });

  const cases: [title: string, rule: { uids?: number[]; gids?: number[]; units?: string[] }, who: Partial<Client>, matches: boolean][] = [
    ['a uid that is listed matches', { uids: [7, 8] }, { uid: 8 }, true],
    ['a uid that is not listed does not', { uids: [7, 8] }, { uid: 9 }, false],
    ['a gid listed for a uid is no uid', { gids: [8] }, { uid: 8 }, false],
    ['a primary group matches', { gids: [8] }, { gid: 8 }, true],
    ['a supplementary group matches', { gids: [8] }, { groups: [3, 8] }, true],
    ['another group does not match', { gids: [8] }, { gid: 80, groups: [3] }, false],
    ['a unit matches by name', { units: ['a.service'] }, { unit: 'a.service' }, true],
    ['a unit matches by wildcard', { units: ['a@*.service'] }, { unit: 'a@1.service' }, true],
    ['a unit that only begins alike does not match', { units: ['a.service'] }, { unit: 'a.service2' }, false],
    ['a client without a unit matches no unit, not even *', { units: ['*'] }, {}, false],
    ['uid and unit must both match: both do', { uids: [7], units: ['a.service'] }, { uid: 7, unit: 'a.service' }, true],
    ['uid and unit must both match: the unit does not', { uids: [7], units: ['a.service'] }, { uid: 7, unit: 'b.service' }, false],
    ['uid and unit must both match: the uid does not', { uids: [7], units: ['a.service'] }, { uid: 8, unit: 'a.service' }, false],
    ['a rule without conditions matches nobody', {}, {}, false],
    ['an empty list matches nobody', { uids: [] }, {}, false],
  ];
  for (const [title, rule, who, matches] of cases) {
    it(title, () => {
      const access = policy({ ...rule, identities: ['*'], permissions: ['server'] });
      assert.equal(access.mayConnect(client(who)), matches);
      assert.equal(access.may(client(who), 'server'), matches);
      assert.equal(access.mayUse(client(who), 'any', 'server'), matches);
    });
  }

  it('a rule grants its permissions and identities, in its roles, and nothing else', () => {
    const access = policy({ uids: [1000], identities: ['web', 'm*'], permissions: ['server', 'backend'] });
    assert.deepEqual(granted(access, client()), ['server', 'backend']);
    for (const localid of ['web', 'm', 'mail']) assert.equal(access.mayUse(client(), localid, 'server'), true, localid);
    for (const localid of ['web2', 'we', 'WEB', '', 'amail']) assert.equal(access.mayUse(client(), localid, 'server'), false, localid);
    assert.equal(access.mayUse(client(), 'web', 'client'), false);
  });
  it('what one rule grants for an identity does not spill into the roles of another', () => {
    const access = policy({ uids: [1000], identities: ['a'], permissions: ['server'] }, { uids: [1000], identities: ['b'], permissions: ['client'] });
    assert.deepEqual([['a', 'server'], ['b', 'client'], ['a', 'client'], ['b', 'server']].map(([localid, role]) => access.mayUse(client(), localid!, role as 'server')), [true, true, false, false]);
  });
  it('rules that a reload replaces are in force at once', () => {
    const access = policy({ uids: [1000], identities: ['*'], permissions: ['server'] });
    access.replace({ rules: [], sessionsPerClient: 6 });
    assert.deepEqual([access.mayConnect(client()), access.sessionsPerClient], [false, 6]);
  });
});

describe('globs', () => {
  it('agree with the same pattern as a regular expression', () => {
    const letter = fc.constantFrom('a', 'b', '.', '*', '?', '\\', '[');
    fc.assert(fc.property(fc.array(letter, { maxLength: 8 }), fc.array(letter, { maxLength: 10 }), (glob, text) => {
      const pattern = glob.map((part) => (part === '*' ? '[^]*' : part === '?' ? '[^]' : `\\${part}`.replace(/\\([ab])/, '$1'))).join('');
      assert.equal(matchesGlob(glob.join(''), text.join('')), new RegExp(`^${pattern}$`).test(text.join('')));
    }), { numRuns: 3000 });
  });
  it('stay fast where a regular expression would not', () => {
    const startedAt = performance.now();
    assert.equal(matchesGlob('*a'.repeat(60), `${'a'.repeat(255)}b`), false);
    assert.ok(performance.now() - startedAt < 1000);
  });
});

describe('units from cgroups', () => {
  const cases: [title: string, text: string, unit: string | undefined][] = [
    ['a system service', '0::/system.slice/dovecot.service\n', 'dovecot.service'],
    ['a service in nested slices', '0::/system.slice/system-web.slice/web@1.service\n', 'web@1.service'],
    ['a service that made cgroups of its own', '0::/system.slice/a.service/workers/b.service\n', 'a.service'],
    ['a user\'s own unit is the user\'s manager', '0::/user.slice/user-1000.slice/user@1000.service/app.slice/dovecot.service\n', 'user@1000.service'],
    ['a login session', '0::/user.slice/user-1000.slice/session-3.scope\n', 'session-3.scope'],
    ['a container engine\'s scope', '0::/system.slice/docker-0123abcd.scope\n', 'docker-0123abcd.scope'],
    ['a hybrid host', '12:pids:/x\n1:name=systemd:/system.slice/a.service\n0::/\n', 'a.service'],
    ['other controllers say nothing', '12:pids:/system.slice/dovecot.service\n', undefined],
    ['a name that systemd escaped', '0::/system.slice/_cgroup.x.service\n', 'cgroup.x.service'],
    ['the root cgroup', '0::/\n', undefined],
    ['a cgroup outside our namespace', '0::/../../system.slice/a.service\n', undefined],
    ['a folder that is no unit hides what is below', '0::/system.slice/odd/dovecot.service\n', undefined],
    ['a removed cgroup', '0::/system.slice/a.service (deleted)\n', undefined],
    ['odd characters', '0::/system.slice/a b.service\n', undefined],
    ['a slice alone', '0::/system.slice\n', undefined],
    ['an empty name', '0::/system.slice/.service\n', undefined],
    ['a name of 255 octets', `0::/${'a'.repeat(247)}.service\n`, `${'a'.repeat(247)}.service`],
    ['a name of 256 octets', `0::/${'a'.repeat(248)}.service\n`, undefined],
    ['nothing', '', undefined],
  ];
  for (const [title, text, unit] of cases) it(`${title}: ${unit ?? 'none'}`.slice(0, 100), () => { assert.equal(parseUnit(text), unit); });
});

describe('identifying a client', () => {
  const pidfd = 33 as OwnedFd;
  function scripted(fields: Partial<ClientHost>): { host: ClientHost; closed: number[]; calls: string[] } {
    const closed: number[] = [];
    const calls: string[] = [];
    const host: ClientHost = {
      readCgroup: (pid) => { calls.push('read'); return fields.readCgroup?.(pid) ?? '0::/system.slice/a.service\n'; },
      isRunning: (fd) => { calls.push('running'); return fields.isRunning?.(fd) ?? true; },
      close: (fd) => { closed.push(fd); },
    };
    return { host, closed, calls };
  }
  const credentials = { pid: 9, uid: 1, gid: 2, groups: [3] };

  it('the unit is reported when the process still runs after its cgroup was read', () => {
    const { host, closed, calls } = scripted({});
    assert.deepEqual(identifyClient({ ...credentials, pidfd }, host), { ...credentials, unit: 'a.service' });
    assert.deepEqual([calls, closed], [['read', 'running'], [33]]);
  });
  it('a process that has ended has no unit: its number may belong to another by now', () => {
    const { host, closed } = scripted({ isRunning: () => false });
    assert.deepEqual([identifyClient({ ...credentials, pidfd }, host), closed], [credentials, [33]]);
  });
  it('without a pidfd nothing is read and there is no unit', () => {
    const { host, closed, calls } = scripted({});
    assert.deepEqual([identifyClient(credentials, host), closed, calls], [credentials, [], []]);
  });
  it('a cgroup that cannot be read or asked about gives no unit, and the pidfd is closed', () => {
    const fail = (): never => { throw new Error('gone'); };
    for (const fields of [{ readCgroup: fail }, { isRunning: fail }]) {
      const { host, closed } = scripted(fields);
      assert.deepEqual([identifyClient({ ...credentials, pidfd }, host), closed], [credentials, [33]]);
    }
  });
  it('a process outside our pid namespace has no unit', () => {
    const { host, closed, calls } = scripted({});
    assert.deepEqual([identifyClient({ ...credentials, pid: 0, pidfd }, host), closed, calls], [{ ...credentials, pid: 0 }, [33], []]);
  });
});

describe('policy presets', () => {
  it('modern has TLS 1.3 only, intermediate has TLS 1.2 too', () => {
    assert.deepEqual([presets.modern.minVersion, presets.intermediate.minVersion, presets.modern.maxVersion, presets.intermediate.maxVersion], ['TLSv1.3', 'TLSv1.2', 'TLSv1.3', 'TLSv1.3']);
  });
  it('every TLS 1.2 suite is forward secret and an AEAD', () => {
    for (const suite of presets.intermediate.ciphers.split(':')) assert.match(suite, /^ECDHE-(ECDSA|RSA)-(AES(128|256)-GCM-SHA(256|384)|CHACHA20-POLY1305)$/);
  });
  it('the post-quantum group comes first', () => {
    for (const preset of Object.values(presets)) assert.deepEqual(preset.groups, ['X25519MLKEM768', 'X25519', 'P-256', 'P-384']);
  });
});
