/** One round of one load against one contender that runs. */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { nextJsonLine, run, start, tree } from './processes.mjs';

/** No single run of the load generator takes longer; the slowest here take some ten seconds. */
const deadlineS = 120;

const loadArgs = (load, port) => [load.mode, '--port', String(port), '--connections', String(load.connections), '--units', String(load.units),
  '--deadline', String(deadlineS), ...(load.transfer === undefined ? [] : ['--transfer', String(load.transfer)]), ...(load.path === undefined ? [] : ['--path', load.path])];

/**
 * CPU time, rate and time to first octet.
 * @param {{load: import('./rows.mjs').Load, contender: import('./contenders.mjs').Contender, program: string, profile?: string}} what  profile: folder for perf's records
 * @returns {Promise<import('./rows.mjs').Sample>}
 */
export async function measureCpu({ load, contender, program, profile }) {
  const recorders = profile === undefined ? [] : record({ load, contender, folder: profile });
  const watch = Object.entries(contender.watch).flatMap(([group, pids]) => ['--watch', `${group}=${pids.join(',')}`]);
  const output = await run({ name: `${load.id} against ${contender.name}`, argv: [program, ...loadArgs(load, contender.port), '--warmup', String(load.warmup), ...watch] });
  await Promise.all(recorders.map((recorder) => recorder.stop()));
  return JSON.parse(output);
}

/** Linux perf on each group of a contender's processes; read with `perf report -i FILE --no-children --sort comm,dso,symbol`. */
function record({ load, contender, folder }) {
  return Object.entries(contender.watch).map(([group, pids]) => start({
    name: 'perf',
    argv: ['perf', 'record', '-q', '-F', '999', '-g', '-e', 'cpu-clock', '-o', path.join(folder, `${load.id}.${contender.name.replaceAll(/[: ]/g, '-')}.${group}.perf`), '-p', pids.join(',')],
  }));
}

/**
 * Memory per idle connection: the difference of Pss of the one process that grew most, which is the one that holds the
 * connections. A few connections go before, so that code and arenas that are set up once are not counted.
 * @param {{load: import('./rows.mjs').Load, contender: import('./contenders.mjs').Contender, program: string}} what
 * @returns {Promise<import('./rows.mjs').Sample>}
 */
export async function measureMemory({ load, contender, program }) {
  const name = `${load.id} against ${contender.name}`;
  const warm = await hold({ name, argv: [program, ...loadArgs({ ...load, units: load.warmup }, contender.port)] });
  await warm.stop();
  // The owner of the listener holds no connection when the pool connects to the backend itself, yet it is in the tree: largest growth wins.
  const pids = Object.values(contender.watch).flatMap((group) => tree(group[0]));
  const before = await settledPss(pids);
  const held = await hold({ name, argv: [program, ...loadArgs(load, contender.port)] });
  const after = await settledPss(pids);
  await held.stop();
  const growth = pids.map((pid) => (after.get(pid) ?? 0) - (before.get(pid) ?? 0));
  return { units: load.units, wallNs: 0, loadCpuNs: 0, cpuNs: {}, firstOctet: { samples: 0, p50Us: 0, p99Us: 0 }, pssKiBPerConnection: Math.max(...growth) / load.units };
}

async function hold(what) {
  const started = start(what);
  const { held } = await nextJsonLine(started, deadlineS * 1000);
  if (!(held > 0)) throw new Error(`${what.name}: no connection is held`);
  return started;
}

const stepMs = 500;
/** V8 waits some 8 s without much work before it tidies up; a shorter look would see garbage of some and not of others. */
const steadyLooks = 24;
const settleMs = 40_000;

/** Pss in KiB by process, once it has moved by less than 0.5 % a look for 12 s, or as it is after 40 s. */
async function settledPss(pids) {
  const until = Date.now() + settleMs;
  let steady = 0;
  let last = readPss(pids);
  while (steady < steadyLooks && Date.now() < until) {
    await new Promise((resolve) => setTimeout(resolve, stepMs));
    const now = readPss(pids);
    steady = Math.abs(sum(now) - sum(last)) < sum(last) * 0.005 ? steady + 1 : 0;
    last = now;
  }
  return last;
}

const sum = (values) => [...values.values()].reduce((total, value) => total + value, 0);

function readPss(pids) {
  return new Map(pids.map((pid) => {
    const found = /^Pss:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'));
    if (found === null) throw new Error(`/proc/${pid}/smaps_rollup has no Pss line`);
    return [pid, Number(found[1])];
  }));
}
