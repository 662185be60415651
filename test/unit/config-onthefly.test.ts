import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { loadConfig } from 'tlspool/dist/config/index.js';

describe('configuration: onTheFly', () => {
  let folder: string;
  beforeEach(() => { folder = mkdtempSync(path.join(tmpdir(), 'cf-')); });
  afterEach(() => { rmSync(folder, { recursive: true, force: true }); });

  const load = (text: string) => {
    const file = path.join(folder, 'pool.yaml');
    writeFileSync(file, text, { mode: 0o600 });
    return loadConfig(file);
  };
  const ca = 'ca: {certificate: ca.crt, key: /keys/ca.key}';
  const refused = (text: string, message: RegExp) => { assert.throws(() => load(text), { code: 'CONFIG_BAD', message }); };

  it('is off without the key', () => { assert.equal(load('').onTheFly, undefined); });
  it('has defaults for all but the CA and the names; paths are relative to the file', () => {
    assert.deepEqual(load(`onTheFly: {${ca}, names: ["*.Example.ORG"]}`).onTheFly, {
      certificate: path.join(folder, 'ca.crt'), key: '/keys/ca.key', names: ['*.example.org'], lifetimeS: 86_400, cache: 1000, policy: 'intermediate', clientAuth: 'none',
    });
  });
  it('takes everything', () => {
    assert.deepEqual(load(`onTheFly: {${ca}, names: [a, "b@*"], lifetime: 12h, cache: 5, policy: modern, clientAuth: request, trust: roots.pem}`).onTheFly, {
      certificate: path.join(folder, 'ca.crt'), key: '/keys/ca.key', names: ['a', 'b@*'], lifetimeS: 43_200, cache: 5, policy: 'modern', clientAuth: 'request', trust: path.join(folder, 'roots.pem'),
    });
  });
  it('names and the CA are required', () => {
    refused(`onTheFly: {${ca}}`, /onTheFly\.names: required key is missing/);
    refused(`onTheFly: {${ca}, names: []}`, /onTheFly\.names/);
    refused('onTheFly: {names: [a]}', /onTheFly\.ca: required key is missing/);
    refused('onTheFly: {ca: {certificate: c}, names: [a]}', /onTheFly\.ca\.key: required key is missing/);
  });
  it('a name is ASCII without blanks', () => {
    for (const name of ['""', '"a b"', '"bücher.example"', `"${'a'.repeat(256)}"`]) refused(`onTheFly: {${ca}, names: [${name}]}`, /onTheFly\.names\[0\]/);
    assert.deepEqual(load(`onTheFly: {${ca}, names: ["${'a'.repeat(255)}"]}`).onTheFly?.names.length, 1);
  });
  it('a lifetime is from 1h to 7d', () => {
    for (const [text, seconds] of [['1h', 3600], ['60m', 3600], ['7d', 604_800]] as const) assert.equal(load(`onTheFly: {${ca}, names: [a], lifetime: ${text}}`).onTheFly?.lifetimeS, seconds);
    for (const text of ['59m', '3599s', '8d', '169h', 'day']) refused(`onTheFly: {${ca}, names: [a], lifetime: ${text}}`, /onTheFly\.lifetime: .* is not a duration from 1h to 7d/);
  });
  it('a cache has 1 to 100000 places', () => {
    for (const cache of [1, 100_000]) assert.equal(load(`onTheFly: {${ca}, names: [a], cache: ${cache}}`).onTheFly?.cache, cache);
    for (const cache of [0, 100_001]) refused(`onTheFly: {${ca}, names: [a], cache: ${cache}}`, /onTheFly\.cache/);
  });
  it('client certificates need roots', () => {
    for (const mode of ['request', 'require']) refused(`onTheFly: {${ca}, names: [a], clientAuth: ${mode}}`, new RegExp(`onTheFly\\.clientAuth: ${mode} needs roots`));
    assert.equal(load(`onTheFly: {${ca}, names: [a], clientAuth: require, trust: r}`).onTheFly?.clientAuth, 'require');
  });
  it('"sign" in a rule gives the permission, and nothing else does', () => {
    const permissions = (rule: string) => load(`access: [{uid: 0, ${rule}}]`).access[0]?.permissions;
    assert.deepEqual(permissions('sign: true'), ['server', 'client', 'sign']);
    assert.deepEqual(permissions('identities: ["*"], backend: true, operator: true'), ['server', 'client', 'backend', 'operator']);
    refused('access: [{uid: 0, sgin: true}]', /did you mean "sign"/);
  });
});
