// `node scripts/sanitizers.mjs [address] [thread] [-- test files]`, both kinds by default. For each kind:
// 1. both addons are built with it into build/sanitizers/<kind> (address: AddressSanitizer + UndefinedBehaviorSanitizer; thread:
//    ThreadSanitizer), and the tests run with them: those of native code, or the files named. Any report fails the run, also one
//    from a process that a test started.
// 2. test/fuzz/native/stress.cc, an engine without Node, is built by clang and runs for STRESS_SECONDS (environment; default 30). Here
//    ThreadSanitizer sees all but OpenSSL, and AddressSanitizer looks for leaks, too.
import { existsSync, mkdirSync, readdirSync, readFileSync, realpathSync, rmSync } from 'node:fs';
import path from 'node:path';
import { copyAddon, place } from './lib/addon-copy.mjs';
import { buildHarness } from './lib/harness.mjs';
import { addons, buildAddon } from './lib/native.mjs';
import { findProgram, root, run, script, ScriptError } from './lib/run.mjs';

const kinds = {
  address: { sanitize: 'address,undefined', runtimes: ['libasan.so', 'libubsan.so'], symbol: '__asan_init', isOurs: (report) => /ERROR|runtime error/.test(report) },
  // Node is not instrumented: its own atomics are invisible, and what its threads share looks like a race. A report counts
  // when code of ours is anywhere in its stacks, unless one side is a thread of V8's compiler or collector, where none of ours ever runs.
  thread: {
    sanitize: 'thread', runtimes: ['libtsan.so'], symbol: '__tsan_init',
    isOurs: (report) => /WARNING|FATAL/.test(report) && !isOfV8(report) && !isReusedNumber(report) && addons.some(({ binary }) => report.includes(`${binary}.node`)),
    // ThreadSanitizer ends a process that has no descriptor left for naming the functions in its reports, Node's harmless ones included.
    mocha: ['--fgrep', 'because the process has no more', '--invert'],
  },
};

/** Node 20 leaves these threads without a name; of later versions the stack does not say what runs. */
function isOfV8(report) {
  return report.includes('v8::platform::DefaultJob') || /Thread T\d+ '(node-)?V8Worker'/.test(report);
}

/** libuv closes descriptors by syscall(2), which ThreadSanitizer does not see: when the kernel gives the number out again, two threads seem to have made it. */
function isReusedNumber(report) {
  return /#0 (socketpair|pipe2|socket|accept4|open|open64|dup|epoll_create1|eventfd) .*\n\s+#1 uv_/.test(report);
}

await script(async () => {
  const words = process.argv.slice(2);
  const end = words.includes('--') ? words.indexOf('--') : words.length;
  const chosen = end === 0 ? Object.keys(kinds) : words.slice(0, end);
  const unknown = chosen.find((name) => !Object.hasOwn(kinds, name));
  if (unknown !== undefined) throw new ScriptError(`There is no sanitizer ${unknown}; usage: node scripts/sanitizers.mjs [${Object.keys(kinds).join('] [')}] [-- test files]`);
  const files = words.slice(end + 1).length === 0 ? nativeTests() : words.slice(end + 1);
  const stressSeconds = Number(process.env.STRESS_SECONDS ?? 30);
  if (!Number.isInteger(stressSeconds) || stressSeconds < 1) throw new ScriptError(`STRESS_SECONDS is "${process.env.STRESS_SECONDS}"; it must be a whole number of seconds, at least 1.`);
  const failures = [];
  for (const name of chosen) {
    await check(name, files).catch((error) => failures.push(`${name}: ${error.message}`));
    await stress(name, stressSeconds).catch((error) => failures.push(`${name}, stress: ${error.message}`));
  }
  if (failures.length > 0) throw new ScriptError(failures.join('\n\n'));
});

/** Compiled tests that drive the addons. */
function nativeTests() {
  const list = (group, pattern) => {
    const folder = path.join(root, 'build/test', group);
    return existsSync(folder) ? readdirSync(folder).filter((file) => pattern.test(file)).map((file) => path.join(folder, file)) : [];
  };
  return [...list('unit', /^native-.*\.test\.js$/), ...list('native', /\.test\.js$/)];
}

async function check(name, files) {
  const kind = kinds[name];
  const folder = path.join(root, 'build/sanitizers', name);
  const reports = path.join(folder, 'reports');
  rmSync(reports, { recursive: true, force: true });
  mkdirSync(reports, { recursive: true });
  for (const addon of addons) {
    const copy = copyAddon(addon, path.join(folder, addon.name));
    const binary = await buildAddon(copy, { defines: [`sanitize=${kind.sanitize}`] });
    // A build without it would find nothing, and look like success.
    if (!readFileSync(binary).includes(kind.symbol)) throw new ScriptError(`${binary} is not instrumented: its binding.gyp must put -fsanitize=<(sanitize) into cflags_cc and ldflags.`);
    place(binary, folder);
  }
  console.log(`\n== ${kind.sanitize}`);
  let failure;
  await runTests(name, { folder, reports, files }).catch((error) => { failure = error.message; });
  const seen = readdirSync(reports).flatMap((file) => readFileSync(path.join(reports, file), 'utf8').split(/^={18,}$/m)).filter(kind.isOurs);
  if (seen.length > 0) throw new ScriptError(`${seen.join('\n')}\n${seen.length} report(s) in ${path.relative(root, reports)}${failure === undefined ? '' : `; and ${failure}`}`);
  if (failure !== undefined) throw new ScriptError(failure);
}

async function runTests(name, { folder, reports, files }) {
  const preload = await Promise.all(kinds[name].runtimes.map(async (runtime) => {
    const file = (await run(process.env.CXX ?? 'g++', [`-print-file-name=${runtime}`], { quiet: true })).trim();
    if (!file.includes('/')) throw new ScriptError(`${runtime} is missing; it comes with the compiler's package (libasan, libubsan, libtsan).`);
    return realpathSync(file);
  }));
  const log = `log_path=${path.join(reports, 'report')}`;
  const variables = [
    `LD_PRELOAD=${preload.join(' ')}`,
    // Node frees little at its end; leaks are found by the tests that count.
    `ASAN_OPTIONS=detect_leaks=0:halt_on_error=1:${log}`,
    `UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1:${log}`,
    `TSAN_OPTIONS=exitcode=0:second_deadlock_stack=1:${log}`,
  ];
  // env: the runtime is for the tests, not for setarch. The time-out is longer because all is slower.
  const mocha = [process.execPath, path.join(root, 'node_modules/mocha/bin/mocha.js'), '--timeout', '100000', ...(kinds[name].mocha ?? []), ...files];
  await runUnrandomized(['env', ...variables, ...mocha], { ...process.env, TLSPOOL_ADDON_DIR: folder });
}

/** A report ends the driver with an exit code of its own; so does a promise of the engine that was not kept. */
async function stress(name, seconds) {
  const program = await buildHarness('stress', name);
  const suppressions = path.join(root, 'scripts/lib/tsan-suppressions.txt');
  const env = {
    ...process.env,
    ASAN_OPTIONS: 'detect_leaks=1:halt_on_error=1',
    UBSAN_OPTIONS: 'print_stacktrace=1:halt_on_error=1',
    TSAN_OPTIONS: `halt_on_error=1:second_deadlock_stack=1:suppressions=${suppressions}`,
  };
  await runUnrandomized([program, String(seconds)], env);
}

/** ThreadSanitizer's memory map does not survive the address randomization of recent kernels. */
async function runUnrandomized(words, env) {
  const setarch = findProgram('setarch');
  if (setarch === undefined) throw new ScriptError('setarch is not on PATH; it comes with util-linux.');
  await run(setarch, ['-R', ...words], { env });
}
