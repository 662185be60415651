/** docs/proxy-configuration.md and the schema say the same. */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { keyRows, keyTable } from 'tlspool-common/config';
import { loadProxyConfig } from 'tlspool-proxy/dist/config/load.js';
import { configSchema } from 'tlspool-proxy/dist/config/schema.js';
import { restartKeys } from 'tlspool-proxy/dist/reload.js';
import { tempFolder } from '../support/cleanup.js';
import { repoRoot } from '../support/program.js';

const page = readFileSync(path.join(repoRoot, 'docs/proxy-configuration.md'), 'utf8');

describe('documentation of the configuration of the proxy', () => {
  it('the table of docs/proxy-configuration.md is the one that the schema makes', () => {
    const [, table] = /<!-- keys: made from the schema -->\n([^]*?)\n<!-- end of keys -->/.exec(page) ?? [];
    assert.equal(table, keyTable(configSchema), 'print the table with: node proxy/dist/config/table.js');
  });
  it('every key has a text, and those with a limit or a default say it', () => {
    const rows = keyRows(configSchema);
    assert.deepEqual(rows.filter(({ text }) => text === '').map(({ key }) => key), []);
    assert.equal(rows.length, 46);
    const silent = rows.filter(({ key, text }) => !/Required|Default|default|Exactly one|At most|Only with|Not for|one to|On standard|on standard|Where these/.test(text) && !/^(log|services\[\]\.listen)$/.test(key));
    assert.deepEqual(silent.map(({ key }) => key), []);
  });
  it('exactly the keys that a reload refuses say that they need a restart', () => {
    const saying = keyRows(configSchema).filter(({ text }) => text.includes('Change needs a restart')).map(({ key }) => key).sort();
    assert.deepEqual(saying, [...restartKeys].sort());
  });
  it('the example that ships loads', () => {
    const services = loadProxyConfig(path.join(repoRoot, 'examples/proxy.yaml')).services.map(({ protocol }) => protocol);
    assert.deepEqual(services, ['imap', 'submission', 'smtp']);
  });
  it('every example of the page loads', () => {
    const examples = [...page.matchAll(/^```yaml\n([^]*?)^```/gmu)].map(([, text = '']) => text);
    assert.ok(examples.length >= 2);
    for (const text of examples) {
      const file = path.join(tempFolder(), 'proxy.yaml');
      writeFileSync(file, text, { mode: 0o600 });
      assert.ok(loadProxyConfig(file).services.length > 0, text);
    }
  });
});
