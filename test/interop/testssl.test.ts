import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { needProgram, run, serve, startPool, tempFolder } from '../support/index.js';
import type { Served, TestPool } from '../support/index.js';

interface Finding { readonly id: string; readonly severity: string; readonly finding: string }

/** Findings that a chain from a CA made for a test cannot avoid; everything else of these severities fails the test. */
const exempted: Readonly<Record<string, string>> = {
  cert_revocation: 'the CA publishes neither a revocation list nor OCSP',
};
const severe = new Set(['MEDIUM', 'HIGH', 'CRITICAL', 'WARN', 'FATAL']);

/** Checks that testssl.sh says it could not make; they are about the program, not about the server. */
const unchecked: Readonly<Record<string, string>> = {
  engine_problem: 'the openssl command has no GOST engine',
  // Resumption is tested with openssl's and Node's clients.
  sessionresumption_ticket: 'its client leaves before it reads anything, and a ticket comes with the first octets of the answer',
};

async function rate(pool: TestPool, port: number, name: string): Promise<Finding[]> {
  const file = path.join(tempFolder(), 'findings.json');
  // The exit code counts problems of its own too; the file is what is judged.
  await run(needProgram('testssl', 'testssl.sh'), [
    '--quiet', '--warnings', 'off', '--color', '0', '--openssl-timeout', '10', '--connect-timeout', '10', '--ip', '127.0.0.1', '--add-ca', pool.caFile,
    '--jsonfile', file, `${name}:${String(port)}`,
  ], { deadlineMs: 550_000, check: false });
  const findings = JSON.parse(readFileSync(file, 'utf8')) as Finding[];
  assert.ok(findings.length > 100, `testssl.sh reported only ${String(findings.length)} things`);
  return findings;
}

describe('testssl.sh has nothing of MEDIUM or worse to say', function () {
  this.timeout(600_000);
  let pool: TestPool;
  let served: Served;

  before(async () => {
    pool = await startPool({
      identities: [{ localid: 'modern.test', policy: 'modern' }, { localid: 'localhost', policy: 'intermediate', default: true }],
      config: { log: { level: 'error' } },
    });
    // What an application says in its headers is not the pool's; testssl.sh looks at it, so it is right here.
    const server = http.createServer((_request, response) => {
      response.setHeader('strict-transport-security', 'max-age=63072000; includeSubDomains');
      response.setHeader('content-security-policy', "default-src 'none'");
      response.setHeader('x-content-type-options', 'nosniff');
      response.setHeader('x-frame-options', 'DENY');
      response.end('hello\n');
    });
    served = await serve(pool, server);
  });

  after(async () => {
    await served.close();
    await pool.stop();
  });

  for (const [policy, name] of [['modern', 'modern.test'], ['intermediate', 'localhost']] as const) {
    it(`${policy} identity`, async () => {
      const findings = await rate(pool, served.port, name);
      const protocols = Object.fromEntries(findings.filter(({ id }) => /^TLS1_[23]$/u.test(id)).map(({ id, finding }) => [id, finding]));
      assert.match(protocols['TLS1_3'] ?? '', /offered/u);
      if (policy === 'modern') assert.match(protocols['TLS1_2'] ?? '', /not offered/u);
      else assert.match(protocols['TLS1_2'] ?? '', /^offered/u);
      const bad = findings.filter(({ id, severity }) => severe.has(severity) && !(id in exempted) && !(severity === 'WARN' && id in unchecked));
      assert.deepEqual(bad.map(({ id, severity, finding }) => `${severity} ${id}: ${finding}`), []);
    });
  }
});
