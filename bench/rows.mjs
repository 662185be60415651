/** What is measured: the loads, and the figures that are read off them. Targets are those that the project set itself. */

const MB = 1_000_000;
const MiB = 2 ** 20;

/**
 * @typedef {object} Load
 * @property {string} id
 * @property {'proxy' | 'app' | 'imap-fd' | 'imap-connect'} field  who takes part
 * @property {string} mode  of the load generator
 * @property {number} connections
 * @property {number} units  that count; of a round
 * @property {number} warmup  units before the measured window, of each round
 * @property {string} [path]
 * @property {number} [transfer]  octets of one request
 * @property {boolean} [isBound]  tlspool's worker is bound to a processor (`workerCpus`), where that is its best configuration
 * @property {string} firstOctet  what the time to first octet is in this load
 */

/** @type {Load[]} */
export const loads = [
  { id: 'handshake', field: 'proxy', mode: 'handshake', connections: 8, units: 5000, warmup: 1000, firstOctet: 'from connect() to the first octet' },
  { id: 'download-1', field: 'proxy', mode: 'download', connections: 1, units: 2000 * MB, warmup: 200 * MB, transfer: 16 * MiB, firstOctet: 'from a request to its first octet' },
  { id: 'download-16', field: 'proxy', mode: 'download', connections: 16, units: 2000 * MB, warmup: 200 * MB, transfer: 4 * MiB, firstOctet: 'from a request to its first octet' },
  { id: 'upload-1', field: 'proxy', mode: 'upload', connections: 1, units: 2000 * MB, warmup: 200 * MB, transfer: 16 * MiB, firstOctet: 'from the last octet of a request to its acknowledgement' },
  { id: 'upload-16', field: 'proxy', mode: 'upload', connections: 16, units: 2000 * MB, warmup: 200 * MB, transfer: 4 * MiB, firstOctet: 'from the last octet of a request to its acknowledgement' },
  { id: 'echo', field: 'proxy', mode: 'echo', connections: 16, units: 100_000, warmup: 10_000, firstOctet: 'from 256 octets to their echo' },
  { id: 'memory', field: 'proxy', mode: 'idle', connections: 1, units: 2000, warmup: 32, firstOctet: 'not measured in this row' },
  { id: 'app-small', field: 'app', mode: 'http', path: '/small', connections: 16, units: 40_000, warmup: 20_000, firstOctet: 'from request to answer' },
  { id: 'app-large', field: 'app', mode: 'http', path: '/large', connections: 16, units: 20_000, warmup: 10_000, isBound: true, firstOctet: 'from request to answer' },
  { id: 'app-new', field: 'app', mode: 'http-new', path: '/small', connections: 8, units: 4000, warmup: 2000, firstOctet: 'from connect() to the answer' },
  { id: 'imap-fd', field: 'imap-fd', mode: 'imap', connections: 64, units: 4000, warmup: 2000, firstOctet: 'from connect() to the backend\'s answer' },
  { id: 'imap-connect', field: 'imap-connect', mode: 'imap', connections: 64, units: 4000, warmup: 2000, firstOctet: 'from connect() to the backend\'s answer' },
  { id: 'imap-alone', field: 'imap-fd', mode: 'imap', connections: 1, units: 100, warmup: 20, firstOctet: 'from connect() to the backend\'s answer' },
];

/** One round of one load against one contender. @typedef {{units: number, wallNs: number, loadCpuNs: number, cpuNs: Record<string, number>, firstOctet: {samples: number, p50Us: number, p99Us: number}, pssKiBPerConnection?: number}} Sample */

const cpuOf = (groups, unit = 1) => (/** @type {Sample} */ sample) =>
  Object.entries(sample.cpuNs).filter(([group]) => groups === 'all' || groups === group).reduce((sum, [, ns]) => sum + ns, 0) / 1000 / (sample.units / unit);
const allCpu = cpuOf('all');
const allCpuPerMb = cpuOf('all', MB);
const appCpu = cpuOf('app');
/** Who protects the connection, without who serves it. */
const frontCpu = (/** @type {Sample} */ sample) => allCpu(sample) - cpuOf('backend')(sample);
const rate = (/** @type {Sample} */ sample) => sample.units / (sample.wallNs / 1e9);

/**
 * @typedef {object} Figure
 * @property {string} id
 * @property {string} load
 * @property {string} title
 * @property {string} unit
 * @property {(sample: Sample) => number} value
 * @property {boolean} [higherIsBetter]
 * @property {number} [target]  ratio to the best peer, tlspool's advantage above 1
 * @property {number} [ceiling]  for figures with an absolute target
 */

/** A contender that is shown and not judged against: the application in plain text, with another program doing its TLS. */
export const reference = 'http behind nginx';

/** "On a par" is read as: within 3 %, which is what rounds of the same contender differ by. */
const onAPar = 0.97;

/** @type {Figure[]} */
export const figures = [
  { id: 'handshake', load: 'handshake', title: 'CPU per full TLS 1.3 handshake, ECDSA P-256', unit: 'µs', value: allCpu, target: 1.1 },
  { id: 'download-1', load: 'download-1', title: 'CPU per MB downloaded, 1 connection', unit: 'µs', value: allCpuPerMb, target: 1.4 },
  { id: 'download-16', load: 'download-16', title: 'CPU per MB downloaded, 16 connections', unit: 'µs', value: allCpuPerMb, target: 1.4 },
  { id: 'upload-1', load: 'upload-1', title: 'CPU per MB uploaded, 1 connection', unit: 'µs', value: allCpuPerMb, target: 1.1 },
  { id: 'upload-16', load: 'upload-16', title: 'CPU per MB uploaded, 16 connections', unit: 'µs', value: allCpuPerMb, target: 1.1 },
  { id: 'echo', load: 'echo', title: 'CPU per 256-octet echo, 16 connections', unit: 'µs', value: allCpu, target: onAPar },
  { id: 'memory', load: 'memory', title: 'Memory per idle TLS connection, 2,000 of them', unit: 'KiB', value: (sample) => sample.pssKiBPerConnection, ceiling: 12 },
  { id: 'app-small-cpu', load: 'app-small', title: 'Application CPU per keep-alive request, 13 octets', unit: 'µs', value: appCpu, target: 1.3 },
  { id: 'app-large-cpu', load: 'app-large', title: 'Application CPU per keep-alive request, 64 KiB', unit: 'µs', value: appCpu, target: 2 },
  { id: 'app-new-cpu', load: 'app-new', title: 'Application CPU per new connection', unit: 'µs', value: appCpu, target: 4 },
  { id: 'app-new-total', load: 'app-new', title: 'Application and pool CPU per new connection', unit: 'µs', value: allCpu, target: 1.3 },
  { id: 'app-small-rate', load: 'app-small', title: 'Keep-alive requests/s, 13 octets', unit: '/s', value: rate, higherIsBetter: true, target: 1.1 },
  { id: 'app-large-rate', load: 'app-large', title: 'Keep-alive requests/s, 64 KiB', unit: '/s', value: rate, higherIsBetter: true, target: 1.1 },
  { id: 'imap-fd-cpu', load: 'imap-fd', title: 'CPU per connection with STARTTLS, its descriptor handed to the backend', unit: 'µs', value: frontCpu, target: onAPar },
  { id: 'imap-fd-total', load: 'imap-fd', title: 'The same with the backend\'s own CPU', unit: 'µs', value: allCpu },
  { id: 'imap-fd-rate', load: 'imap-fd', title: 'Connections/s, descriptor handed over', unit: '/s', value: rate, higherIsBetter: true },
  { id: 'imap-alone', load: 'imap-alone', title: 'Time to the backend\'s answer, one connection at a time (median)', unit: 'ms', value: (sample) => sample.firstOctet.p50Us / 1000 },
  { id: 'imap-connect-cpu', load: 'imap-connect', title: 'CPU per connection with STARTTLS, connected to the backend', unit: 'µs', value: frontCpu, target: onAPar },
  { id: 'imap-connect-total', load: 'imap-connect', title: 'The same with the backend\'s own CPU', unit: 'µs', value: allCpu },
  { id: 'imap-connect-rate', load: 'imap-connect', title: 'Connections/s, connected to the backend', unit: '/s', value: rate, higherIsBetter: true },
];
