/** bench/RESULTS.md, from what was measured. */
import { loads, reference } from './rows.mjs';
import { median } from './statistics.mjs';

const digits = (value) => (value >= 1000 ? Math.round(value).toLocaleString('en-US') : value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2));
const row = (cells) => `| ${cells.join(' | ')} |`;
const rule = (count) => row(Array.from({ length: count }, () => '---'));

/**
 * @param {{machine: object, rounds: number, verdicts: import('./statistics.mjs').Verdict[], results: Map<string, Map<string, import('./rows.mjs').Sample[]>>}} what
 * @returns {string}
 */
export function report({ machine, rounds, verdicts, results }) {
  const proxies = verdicts.filter(({ figure }) => fieldOf(figure.load) === 'proxy');
  const apps = verdicts.filter(({ figure }) => fieldOf(figure.load) === 'app');
  const imap = verdicts.filter(({ figure }) => fieldOf(figure.load)?.startsWith('imap'));
  return [
    '# Results', '',
    `Made by \`npm run bench\` on ${machine.date}: ${machine.cpu}, ${machine.memoryGiB} GiB, ${machine.kernel}, Node ${machine.node}; the peers run on ${machine.opensslOfPeers}.`,
    `${Object.entries(machine.peers).map(([name, version]) => `${name} ${version}`).join(', ')}; one worker each.`,
    `Medians of ${rounds} interleaved round${rounds === 1 ? '' : 's'}; the ratio is computed within each round, against the peer with the best median, and its median is shown.`, '',
    ...section('tlspool as a proxy', proxies), ...section('A Node web server behind the pool, and on node:https', apps), ...section('IMAP with STARTTLS', imap),
    ...firstOctets(results), ...parts(results), ...notes,
  ].join('\n');
}

const fieldOf = (id) => loads.find((load) => load.id === id)?.field;

/** Transfers are counted in octets and shown per MB. */
const scaleOf = (id) => (loads.find((load) => load.id === id)?.transfer === undefined ? 1 : 1_000_000);

function section(title, verdicts) {
  if (verdicts.length === 0) return [];
  const names = [...new Set(verdicts.flatMap(({ medians }) => [...medians.keys()]))];
  return [
    `## ${title}`, '',
    row(['row', 'unit', ...names, 'best peer', 'ratio', 'target', 'reached']), rule(names.length + 6),
    ...verdicts.map((verdict) => row([
      verdict.figure.title, verdict.figure.unit,
      ...names.map((name) => (verdict.medians.has(name) ? digits(verdict.medians.get(name)) : '')),
      verdict.best ?? '', verdict.ratio === undefined ? '' : `${verdict.ratio.toFixed(2)} x`, target(verdict.figure),
      verdict.reached === undefined ? '' : verdict.reached ? 'yes' : '**no**',
    ])), '',
  ];
}

function target({ target: ratio, ceiling, unit }) {
  if (ceiling !== undefined) return `at most ${ceiling} ${unit}`;
  return ratio === undefined ? '' : ratio < 1 ? `on a par (${ratio} x)` : `${ratio} x`;
}

const shown = (results) => [...results].filter(([id]) => id !== 'memory');

function firstOctets(results) {
  const lines = shown(results).flatMap(([id, samples]) => [...samples].map(([name, rounds]) => row([
    id, name, digits(median(rounds.map(({ firstOctet }) => firstOctet.p50Us))), digits(median(rounds.map(({ firstOctet }) => firstOctet.p99Us))),
    digits(median(rounds.map(({ units, wallNs }) => units / scaleOf(id) / (wallNs / 1e9)))), loads.find((load) => load.id === id)?.firstOctet ?? '',
  ])));
  return ['## Time to first octet, and rates', '', row(['row', 'contender', 'p50 µs', 'p99 µs', 'units/s (transfers: MB/s)', 'first octet']), rule(6), ...lines, ''];
}

/** Where a contender is more than one process, how its CPU time divides. */
function parts(results) {
  const lines = shown(results).flatMap(([id, samples]) => [...samples].filter(([, rounds]) => Object.keys(rounds[0].cpuNs).length > 1).map(([name, rounds]) => {
    const perUnit = (group) => median(rounds.map(({ cpuNs, units }) => cpuNs[group] / 1000 / units));
    return row([id, name, Object.keys(rounds[0].cpuNs).map((group) => `${group} ${digits(perUnit(group) * scaleOf(id))}`).join(', ')]);
  }));
  return lines.length === 0 ? [] : ['## CPU by process, µs per unit (per MB for transfers)', '', row(['row', 'contender', 'parts']), rule(3), ...lines, ''];
}

const notes = [
  '## How to read this', '',
  '- CPU time is user and system time of all processes and threads of a contender, from their CPU clocks (nanoseconds, ended threads included), between the end of the warm-up and the last unit that counts. For tlspool as a proxy that is tlspoold and the process that owns the listener.',
  '- With STARTTLS it is tlspoold and tlspool-proxy together, or stunnel with `protocol = imap`; the backend, a Node server, is counted apart. Both speak the same dialogue: greeting, STARTTLS, handshake, one command with its answer, close_notify.',
  '- On a shared machine the CPU columns are the ones to judge by. Load generator, backend and contender share the cores here, so the rates are those of a full machine, and times to first octet contain queueing.',
  `- "${reference}" is the same application in plain text, with nginx in front. It is shown for comparison: what Node's HTTP takes when TLS costs it nothing. The ratio is against node:https.`,
  '- Packets over loopback are processed in the time of whoever sends them: every contender pays for half of its neighbours\' TCP as well.',
  '- Every connection is TLS 1.3 with TLS_AES_128_GCM_SHA256 and X25519, not resumed. The peers use the system\'s OpenSSL, tlspool and node:https the one inside Node.',
  '- A run in which any connection met an error has no result; there are no such runs in these tables.', '',
];
