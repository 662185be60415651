/** Who takes part: the peers as proxies, tlspool as a proxy, and the two web applications. */
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { haproxy } from './peers/haproxy.mjs';
import { hitch } from './peers/hitch.mjs';
import { nginx } from './peers/nginx.mjs';
import { stunnel } from './peers/stunnel.mjs';
import { reference } from './rows.mjs';
import { usableProcessors } from '../daemon/dist/config/processors.js';
import { accepting, freePort, nextJsonLine, start, tree } from './processes.mjs';

const here = path.dirname(fileURLToPath(import.meta.url));
const daemon = path.join(here, '..', 'daemon', 'bin', 'tlspoold.js');
const proxy = path.join(here, '..', 'proxy', 'bin', 'tlspool-proxy.js');
const readyMs = 15_000;

/** The peers by name; adding one is adding a file. */
export const peers = [nginx, haproxy, hitch, stunnel];

/**
 * @typedef {object} Stage  what every contender gets
 * @property {string} folder
 * @property {{chain: string, key: string, both: string, identity: string}} certificate
 * @property {number} backendPort
 * @property {import('./rows.mjs').Load} row
 * @property {string} [profile]  folder for profiles
 *
 * @typedef {object} Contender  one that runs
 * @property {string} name
 * @property {number} port
 * @property {Record<string, number[]>} watch  process ids by group; CPU time is reported per group
 * @property {() => Promise<void>} stop
 */

/**
 * @param {typeof nginx} peer
 * @param {Stage} stage
 * @returns {Promise<Contender>}
 */
async function startPeer(peer, stage) {
  const port = await freePort();
  const folder = path.join(stage.folder, peer.name);
  mkdirSync(folder, { recursive: true });
  const started = start({ name: peer.name, argv: peer.configure({ ...stage, folder, port }), cwd: folder });
  await accepting(started, port);
  return { name: peer.name, port, watch: { server: tree(started.child.pid) }, stop: started.stop };
}

/** tlspoold with one worker and the benchmark's certificate. */
async function startPool(stage) {
  const folder = path.join(stage.folder, 'tlspool');
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const socket = path.join(folder, 'pool.sock');
  const config = path.join(folder, 'tlspool.yaml');
  // JSON is YAML. The limits leave room for the idle row: 2,000 sessions of one client.
  writeFileSync(config, JSON.stringify({
    socket: { path: socket },
    state: path.join(folder, 'state'),
    workers: 1,
    ...(stage.row.isBound === true && { workerCpus: [...usableProcessors()].slice(0, 1) }),
    log: { level: 'warn' },
    limits: { sessions: 8000, sessionsPerClient: 8000 },
    identities: [{ localid: 'bench', directory: stage.certificate.identity, policy: 'intermediate', default: true }],
  }));
  const started = start({ name: 'tlspoold', argv: [...node(stage), daemon, '--config', config] });
  started.child.stdout.resume();
  const until = Date.now() + readyMs;
  while (!existsSync(socket)) {
    if (started.child.exitCode !== null || Date.now() > until) throw new Error(`tlspoold does not listen:\n${started.log().trim()}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return { started, socket };
}

/** Node, with its own CPU profiler where profiles are wanted: perf does not see names in JavaScript. */
const node = ({ profile, row }) => [process.execPath, ...(profile === undefined ? [] : ['--cpu-prof', `--cpu-prof-dir=${path.join(profile, row.id)}`])];

/** A Node program of bench/apps that prints its port. */
async function startApp(stage, name, argv, env) {
  const started = start({ name, argv: [...node(stage), path.join(here, 'apps', argv[0]), ...argv.slice(1)], env });
  const { port } = await nextJsonLine(started);
  return { started, port };
}

/** A program of bench/apps that gets its connections from a pool of its own. */
async function startBehindPool(stage, name, argv, group) {
  const pool = await startPool(stage);
  const app = await startApp(stage, name, argv, { TLSPOOL_SOCKET: pool.socket });
  return {
    name: 'tlspool',
    port: app.port,
    watch: { pool: tree(pool.started.child.pid), [group]: tree(app.started.child.pid) },
    stop: async () => {
      await app.started.stop();
      await pool.started.stop();
    },
  };
}

/** An IMAP backend; `handoffPath` as in apps/imap.mjs. */
const startImapBackend = (stage, ...handoffPath) => startApp(stage, 'IMAP backend', ['imap.mjs', ...handoffPath], {});

/** tlspool-proxy with a service for IMAP on a port that was free, and its backend: by hand-off of the descriptor, or as a TCP server. */
async function startImapProxy(stage) {
  const pool = await startPool(stage);
  const folder = path.dirname(pool.socket);
  const isHandedOver = stage.row.field === 'imap-fd';
  const handoffPath = path.join(folder, 'imap.sock');
  const backend = await startImapBackend(stage, ...(isHandedOver ? [handoffPath] : []));
  const port = await freePort();
  const config = path.join(folder, 'proxy.yaml');
  writeFileSync(config, JSON.stringify({
    pool: pool.socket,
    log: { level: 'warn' },
    services: [{ name: 'imap', protocol: 'imap', listen: `127.0.0.1:${port}`, hostname: 'localhost', localid: 'bench', perAddress: 1000, backend: isHandedOver ? { fd: handoffPath } : { connect: `127.0.0.1:${backend.port}` } }],
  }), { mode: 0o600 });
  const started = start({ name: 'tlspool-proxy', argv: [...node(stage), proxy, '--config', config] });
  started.child.stdout.resume();
  await accepting(started, port);
  return {
    name: 'tlspool',
    port,
    watch: { pool: tree(pool.started.child.pid), proxy: tree(started.child.pid), backend: tree(backend.started.child.pid) },
    stop: async () => {
      for (const one of [started, backend.started, pool.started]) await one.stop();
    },
  };
}

/** stunnel speaks IMAP up to STARTTLS as well: `protocol = imap`. */
async function startImapStunnel(stage) {
  const backend = await startImapBackend(stage);
  const server = await startPeer({ ...stunnel, configure: (what) => stunnel.configure({ ...what, protocol: 'imap' }) }, { ...stage, backendPort: backend.port });
  return {
    ...server,
    watch: { ...server.watch, backend: tree(backend.started.child.pid) },
    stop: async () => {
      await server.stop();
      await backend.started.stop();
    },
  };
}

/** The web application without TLS, on plain TCP behind nginx: what Node's HTTP takes when TLS costs it nothing. */
async function startAppBehindNginx(stage) {
  const app = await startApp(stage, 'application behind nginx', ['http.mjs'], {});
  const server = await startPeer(nginx, { ...stage, backendPort: app.port });
  return {
    name: reference,
    port: server.port,
    watch: { ...server.watch, app: tree(app.started.child.pid) },
    stop: async () => {
      await server.stop();
      await app.started.stop();
    },
  };
}

const imap = [{ name: 'tlspool', start: startImapProxy }, { name: 'stunnel', start: startImapStunnel }];

/** @type {Record<'proxy' | 'app' | 'imap-fd' | 'imap-connect', {name: string, start: (stage: Stage) => Promise<Contender>}[]>} */
export const contenders = {
  'imap-fd': imap,
  'imap-connect': imap,
  proxy: [
    { name: 'tlspool', start: (stage) => startBehindPool(stage, 'listener', ['proxy.mjs', String(stage.backendPort)], 'owner') },
    ...peers.map((peer) => ({ name: peer.name, start: (stage) => startPeer(peer, stage) })),
  ],
  app: [
    { name: 'tlspool', start: (stage) => startBehindPool(stage, 'application behind the pool', ['pool.mjs'], 'app') },
    {
      name: 'node:https',
      start: async (stage) => {
        const app = await startApp(stage, 'node:https', ['https.mjs', stage.certificate.chain, stage.certificate.key], {});
        return { name: 'node:https', port: app.port, watch: { app: tree(app.started.child.pid) }, stop: app.started.stop };
      },
    },
    { name: reference, start: startAppBehindNginx },
  ],
};
