/** The benchmark from beginning to end: check, build, start, measure in interleaved rounds, judge, write. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { makeCertificate } from './certificate.mjs';
import { contenders, peers } from './contenders.mjs';
import { describeMachine } from './machine.mjs';
import { measureCpu, measureMemory } from './measure.mjs';
import { killAll, nextJsonLine, start, stopAll } from './processes.mjs';
import { report } from './report.mjs';
import { buildPrograms, missingPackages } from './requirements.mjs';
import { loads, reference } from './rows.mjs';
import { judgeAll } from './statistics.mjs';

const here = path.dirname(fileURLToPath(import.meta.url));
const usage = `usage: npm run bench -- [options]
  --rounds N      interleaved rounds, 1 to 99 (default 5)
  --quick         a tenth of the work, one round, nothing written: for development
  --rows a,b      only these loads: ${loads.map(({ id }) => id).join(', ')}
  --peers a,b     only these contenders: tlspool, ${peers.map(({ name }) => name).join(', ')}, node:https, ${reference}
  --profile FOLDER  record each contender with Linux perf, and Node's with --cpu-prof too; slower, so nothing else is written
  --out FOLDER    where RESULTS.md and results.json go (default: bench/)`;

/**
 * @param {readonly string[]} args
 * @returns {Promise<number>} exit status: 0 measured, 1 something failed, 2 usage or missing packages
 */
export async function main(args) {
  const options = readOptions(args);
  if (typeof options === 'string') {
    process.stderr.write(`${options}\n`);
    return 2;
  }
  const missing = missingPackages(peers.filter(({ name }) => options.takesPart(name) || (name === 'nginx' && options.takesPart(reference))));
  if (missing.length > 0) {
    process.stderr.write(`Missing: ${missing.join(' ')}\nOn Debian: apt-get install ${missing.join(' ')}\n`);
    return 2;
  }
  const folder = mkdtempSync(path.join(os.tmpdir(), 'tlspool-bench-'));
  const tidy = () => { killAll(); rmSync(folder, { recursive: true, force: true }); };
  const interrupted = () => { process.exit(130); };
  process.stdout.once('error', () => process.exit(1)); // the reader of a pipe has left
  process.once('exit', tidy).once('SIGINT', interrupted).once('SIGTERM', interrupted).once('SIGHUP', interrupted);
  try {
    await measureAndWrite(folder, options);
    return 0;
  } catch (error) {
    process.stderr.write(`${error.message}\n`);
    return 1;
  } finally {
    await stopAll();
    rmSync(folder, { recursive: true, force: true });
  }
}

function readOptions(args) {
  try {
    const { values } = parseArgs({
      args: [...args],
      options: { rounds: { type: 'string' }, quick: { type: 'boolean' }, rows: { type: 'string' }, peers: { type: 'string' }, out: { type: 'string' }, profile: { type: 'string' }, help: { type: 'boolean' } },
    });
    if (values.help === true) return usage;
    const known = new Set(['tlspool', 'node:https', reference, ...peers.map(({ name }) => name)]);
    const chosen = choose(values.peers, known, '--peers');
    const rows = choose(values.rows, new Set(loads.map(({ id }) => id)), '--rows');
    const rounds = values.rounds === undefined ? (values.quick === true ? 1 : 5) : Number(values.rounds);
    if (!Number.isInteger(rounds) || rounds < 1 || rounds > 99) throw new Error(`--rounds: "${values.rounds}" is not a whole number from 1 to 99`);
    return { rounds, quick: values.quick === true, takesPart: (name) => chosen.has(name), rows, profile: values.profile, out: values.out ?? (values.quick === true || values.profile !== undefined ? undefined : here) };
  } catch (error) {
    return `${error.message}\n${usage}`;
  }
}

function choose(text, known, option) {
  if (text === undefined) return known;
  const chosen = new Set(text.split(','));
  for (const name of chosen) {
    if (!known.has(name)) throw new Error(`${option}: "${name}" is none of ${[...known].join(', ')}`);
  }
  return chosen;
}

async function measureAndWrite(folder, options) {
  const programs = await buildPrograms({ sources: path.join(here, 'native'), output: path.join(here, '..', 'build', 'bench') });
  const certificate = await makeCertificate(folder);
  const backend = start({ name: 'backend', argv: [programs.backend] });
  const { port: backendPort } = await nextJsonLine(backend);
  const results = new Map();
  for (const load of loads.filter(({ id }) => options.rows.has(id))) {
    const row = options.quick ? { ...load, units: Math.ceil(load.units / 10), warmup: Math.ceil(load.warmup / 10) } : load;
    results.set(row.id, await measureRow({ stage: { folder, certificate, backendPort, row, profile: options.profile }, options, program: programs.load }));
  }
  const verdicts = judgeAll(results);
  const text = report({ machine: describeMachine(peers), rounds: options.rounds, verdicts, results });
  if (options.out === undefined) {
    process.stdout.write(`\n${text}`);
    return;
  }
  writeFileSync(path.join(options.out, 'RESULTS.md'), text);
  writeFileSync(path.join(options.out, 'results.json'), `${JSON.stringify(asJson(options, verdicts, results), null, 1)}\n`);
  process.stdout.write(`\nWrote ${path.join(options.out, 'RESULTS.md')} and results.json\n`);
}

/** Starts everybody, measures A B C, A B C, ..., and stops them: nobody has a quieter machine than the others. */
async function measureRow({ stage, options, program }) {
  const { row } = stage;
  const samples = new Map();
  const field = contenders[row.field].filter(({ name }) => options.takesPart(name));
  let running = [];
  for (let round = 1; round <= options.rounds; round++) {
    // Memory is counted in processes that have not served a round before.
    if (running.length === 0) for (const { start: begin } of field) running.push(await begin(stage));
    // Memory settles by itself and nobody is loaded meanwhile, so that row takes all at the same time.
    const together = row.id === 'memory' ? await Promise.all(running.map((contender) => measureMemory({ load: row, contender, program }))) : [];
    for (const [index, contender] of running.entries()) {
      const sample = together[index] ?? await measureCpu({ load: row, contender, program, profile: options.profile });
      samples.set(contender.name, [...(samples.get(contender.name) ?? []), sample]);
      process.stdout.write(`${row.id} round ${round}/${options.rounds} ${contender.name}: ${brief(sample)}\n`);
    }
    if (row.id === 'memory' || round === options.rounds) {
      await Promise.all(running.map((contender) => contender.stop()));
      running = [];
    }
  }
  return samples;
}

function brief({ units, wallNs, cpuNs, loadCpuNs, firstOctet, pssKiBPerConnection }) {
  if (pssKiBPerConnection !== undefined) return `${pssKiBPerConnection.toFixed(1)} KiB per connection`;
  const seconds = wallNs / 1e9;
  const cpu = Object.entries(cpuNs).map(([group, ns]) => `${group} ${(ns / 1e9).toFixed(2)} s`).join(', ');
  return `${units} in ${seconds.toFixed(2)} s; CPU ${cpu}, load ${(loadCpuNs / 1e9).toFixed(2)} s; first octet p50 ${firstOctet.p50Us} p99 ${firstOctet.p99Us} µs`;
}

function asJson(options, verdicts, results) {
  return {
    machine: describeMachine(peers),
    rounds: options.rounds,
    figures: verdicts.map(({ figure, medians, spread, best, ratio, reached }) => ({
      id: figure.id, title: figure.title, unit: figure.unit, medians: Object.fromEntries(medians), spread: Object.fromEntries(spread), best, ratio, target: figure.target, ceiling: figure.ceiling, reached,
    })),
    samples: Object.fromEntries([...results].map(([load, samples]) => [load, Object.fromEntries(samples)])),
  };
}
