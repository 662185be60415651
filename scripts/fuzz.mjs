// `node scripts/fuzz.mjs [--seconds N] [--jobs N] [handshake] [records] [models]`: builds the fuzzers of native code with libFuzzer,
// AddressSanitizer and UndefinedBehaviorSanitizer, runs each for N seconds (60), and keeps what they learn in build/fuzz/corpus.
// A finding fails the run; its input stays in build/fuzz/findings, and `build/fuzz/fuzz/fuzz_<name> FILE` repeats it.
import { spawn } from 'node:child_process';
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { buildHarness } from './lib/harness.mjs';
import { root, script, ScriptError } from './lib/run.mjs';
import { seeds } from './lib/fuzz-seeds.mjs';

await script(async () => {
  const { values, positionals } = parseArgs({ allowPositionals: true, options: { seconds: { type: 'string', default: '60' }, jobs: { type: 'string', default: '2' } } });
  const [seconds, jobs] = [Number(values.seconds), Number(values.jobs)];
  const names = Object.keys(seeds);
  const wrong = positionals.find((name) => !names.includes(name));
  if (wrong !== undefined || !(seconds >= 1) || !(jobs >= 1)) {
    throw new ScriptError(`usage: node scripts/fuzz.mjs [--seconds N] [--jobs N] [${names.join('] [')}]${wrong === undefined ? '' : `; there is no fuzzer ${wrong}`}`);
  }
  const chosen = positionals.length > 0 ? positionals : names;
  const programs = new Map();
  for (const name of chosen) programs.set(name, await buildHarness(`fuzz_${name}`, 'fuzz'));
  const waiting = [...chosen];
  const failures = [];
  await Promise.all(Array.from({ length: Math.min(jobs, waiting.length) }, async () => {
    for (let name = waiting.shift(); name !== undefined; name = waiting.shift()) {
      await fuzz(name, programs.get(name), seconds).catch((error) => failures.push(error.message));
    }
  }));
  if (failures.length > 0) throw new ScriptError(failures.join('\n\n'));
});

/** Runs one fuzzer; throws when it found something. */
async function fuzz(name, program, seconds) {
  const corpus = path.join(root, 'build/fuzz/corpus', name);
  const findings = path.join(root, 'build/fuzz/findings', name);
  for (const folder of [corpus, findings]) mkdirSync(folder, { recursive: true });
  const made = seeds[name]();
  made.forEach((seed, index) => writeFileSync(path.join(corpus, `seed-${String(index)}`), seed));
  // An empty folder would fuzz from nothing, and look as good.
  if (readdirSync(corpus).length < made.length || made.length === 0) throw new ScriptError(`fuzz ${name}: there is no seed in ${corpus}`);
  const options = [`-max_total_time=${String(Math.round(seconds))}`, '-max_len=4096', '-timeout=60', '-rss_limit_mb=3072', '-print_final_stats=1',
    '-reload=0', '-use_value_profile=1', `-artifact_prefix=${findings}${path.sep}`];
  const { code, log } = await output(program, [...options, corpus]);
  const runs = /stat::number_of_executed_units:\s*(\d+)/.exec(log)?.[1];
  const coverage = [...log.matchAll(/cov: (\d+) ft: (\d+) corp: (\d+)/g)].at(-1);
  if (code !== 0 || runs === undefined || coverage === undefined) {
    throw new ScriptError(`${log.split('\n').slice(-80).join('\n')}\nfuzz ${name}: a finding (exit code ${String(code)}); its input is in ${path.relative(root, findings)}`);
  }
  console.log(`fuzz ${name}: ${runs} runs in ${String(seconds)} s, ${coverage[1]} edges, ${coverage[2]} features, ${coverage[3]} inputs; nothing found`);
}

function output(program, args) {
  return new Promise((resolve, reject) => {
    // symbolize needs llvm-symbolizer, which comes with clang.
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, UBSAN_OPTIONS: 'print_stacktrace=1', ASAN_OPTIONS: 'handle_abort=1:detect_leaks=1' } });
    let log = '';
    for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => { log = (log + text).slice(-200_000); });
    child.once('error', reject);
    child.once('close', (code, signal) => resolve({ code: code ?? signal, log }));
  });
}
