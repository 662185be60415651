import assert from 'node:assert/strict';
import http from 'node:http';
import https from 'node:https';
import type { AddressInfo } from 'node:net';
import type { TLSSocket } from 'node:tls';
import path from 'node:path';
import { readFileSync } from 'node:fs';
import express from 'express';
import Fastify from 'fastify';
import { curl, expectBaseline, issue, makeCa, nodeConnect, nodeGet, serve, startPool, tempFolder } from '../support/index.js';
import type { Baseline, Served, Target, TestLeaf, TestPool } from '../support/index.js';

/** What an application sees of a request; the same of all frameworks. */
interface Report {
  readonly framework: string;
  readonly secure: boolean;
  readonly address: string | undefined;
  readonly subject: string | undefined;
  readonly authorized: boolean;
  readonly error: string | null;
  readonly servername: string | false | undefined;
  readonly protocol: string | null;
  readonly body: string;
}

/** The common name in the client's certificate. */
function subjectOf(socket: TLSSocket): string | undefined {
  const name: unknown = socket.getPeerCertificate().subject?.CN;
  return typeof name === 'string' ? name : undefined;
}

function report(framework: string, seen: { secure: boolean; address: string | undefined; socket: TLSSocket; body: string }): Report {
  const { socket } = seen;
  const error = socket.authorizationError as unknown as Error | string | null | undefined;
  return {
    framework, secure: seen.secure, address: seen.address, subject: subjectOf(socket), authorized: socket.authorized,
    error: error === null || error === undefined ? null : String(error), servername: (socket as TLSSocket & { servername?: string | false }).servername,
    protocol: socket.getProtocol(), body: seen.body,
  };
}

type Framework = (pool: TestPool) => Promise<Served>;
const localid = 'localhost';

const frameworks: Readonly<Record<string, Framework>> = {
  'node:http': (pool) => serve(pool, http.createServer((req, res) => {
    let body = '';
    req.setEncoding('utf8').on('data', (text: string) => { body += text; });
    req.on('end', () => {
      const socket = req.socket as TLSSocket;
      res.end(JSON.stringify(report('node:http', { secure: socket.encrypted, address: socket.remoteAddress, socket, body })));
    });
  }), { localid, clientAuth: 'request', rejectUnauthorized: false }),

  Express: (pool) => {
    const app = express();
    app.use(express.text());
    app.all('/', (req, res) => {
      res.json(report('Express', { secure: req.secure && req.protocol === 'https', address: req.ip, socket: req.socket as TLSSocket, body: typeof req.body === 'string' ? req.body : '' }));
    });
    return serve(pool, http.createServer(app), { localid, clientAuth: 'request', rejectUnauthorized: false });
  },

  Fastify: (pool) => {
    const app = Fastify();
    app.all('/', (request) => report('Fastify', {
      secure: request.protocol === 'https', address: request.ip, socket: request.raw.socket as TLSSocket, body: typeof request.body === 'string' ? request.body : '',
    }));
    return serve(pool, app, { localid, clientAuth: 'request', rejectUnauthorized: false });
  },
};

describe('web frameworks behind the pool', function () {
  this.timeout(30_000);
  let pool: TestPool;
  let baseline: Baseline;
  let client: TestLeaf;
  let stranger: TestLeaf;

  before(async () => {
    pool = await startPool({ identities: [{ localid, policy: 'intermediate', default: true, trust: true }] });
    const folder = tempFolder();
    client = await issue(pool.ca, path.join(folder, 'client'), { commonName: 'alice', sans: ['email:alice@example.org'], usage: 'clientAuth' });
    const otherCa = await makeCa(path.join(folder, 'other-ca'), 'another CA');
    stranger = await issue(otherCa, path.join(folder, 'stranger'), { commonName: 'mallory', sans: ['email:mallory@example.org'], usage: 'clientAuth' });
    baseline = pool.baseline();
  });

  after(async () => {
    await expectBaseline(pool, baseline);
    await pool.stop();
  });

  for (const [name, start] of Object.entries(frameworks)) {
    describe(name, () => {
      let served: Served;
      let target: Target;

      before(async () => {
        served = await start(pool);
        target = { port: served.port, caFile: pool.caFile };
      });
      after(async () => { await served.close(); });

      it('the request is secure and comes from the client\'s own address', async () => {
        const { status, body } = await nodeGet(target);
        assert.equal(status, 200);
        const seen = JSON.parse(body) as Report;
        assert.deepEqual({ ...seen, protocol: undefined }, {
          framework: name, secure: true, address: '127.0.0.1', authorized: false, error: seen.error, servername: 'localhost', protocol: undefined, body: '',
        });
        assert.equal(seen.protocol, 'TLSv1.3');
      });

      it('a client with a certificate of the trusted CA is authorized and known by name', async () => {
        const seen = JSON.parse((await nodeGet({ ...target, client })).body) as Report;
        assert.equal(seen.subject, 'alice');
        assert.equal(seen.authorized, true);
        assert.equal(seen.error, null);
      });

      it('a client with a certificate of another CA is not authorized, and the reason is told', async () => {
        const seen = JSON.parse((await nodeGet({ ...target, client: stranger })).body) as Report;
        assert.equal(seen.authorized, false);
        assert.match(String(seen.error), /UNABLE_TO|SELF_SIGNED/u);
      });

      it('curl posts a body over TLS 1.2 and 1.3', async () => {
        for (const version of ['1.2', '1.3']) {
          const { stdout } = await curl(target, '/', [`--tlsv${version}`, '--tls-max', version, '-H', 'content-type: text/plain', '--data-binary', 'the body']);
          const seen = JSON.parse(stdout) as Report;
          assert.equal(seen.body, 'the body');
          assert.equal(seen.protocol, `TLSv${version}`);
        }
      });

      it('200 requests on one keep-alive connection are answered in order', async () => {
        const agent = new https.Agent({ keepAlive: true, maxSockets: 1, ca: readFileSync(pool.caFile), servername: 'localhost' });
        const ports = new Set<number>();
        for (let count = 0; count < 200; count++) {
          await new Promise<void>((resolve, reject) => {
            https.get({ host: '127.0.0.1', port: served.port, agent }, (response) => {
              ports.add((response.socket.address() as AddressInfo).port);
              response.resume().on('end', resolve).on('error', reject);
            }).on('error', reject);
          });
        }
        agent.destroy();
        assert.equal(ports.size, 1);
      });
    });
  }

  it('where a certificate is required, a client without one does not reach the application, and one with it does', async () => {
    const requests: string[] = [];
    const served = await serve(pool, http.createServer((req, res) => { requests.push(req.url ?? ''); res.end('in'); }), { localid, clientAuth: 'require' });
    const target = { port: served.port, caFile: pool.caFile };
    await assert.rejects(nodeGet(target, '/without'));
    await assert.rejects(nodeGet({ ...target, client: stranger }, '/stranger'));
    assert.equal((await nodeGet({ ...target, client }, '/with')).body, 'in');
    assert.deepEqual(requests, ['/with']);
    await served.close();
  });

  it('a server that closes lets the request in progress finish and takes no new connection', async () => {
    let answer: (() => void) | undefined;
    const got = new Promise<void>((resolve) => {
      answer = resolve;
    });
    let finish: (() => void) | undefined;
    const server = http.createServer((_req, res) => {
      finish = () => { res.end('late'); };
      answer?.();
    });
    const served = await serve(pool, server, { localid });
    const target = { port: served.port, caFile: pool.caFile };
    const slow = nodeGet(target);
    await got;
    const closed = served.close();
    finish?.();
    assert.equal((await slow).body, 'late');
    await closed;
    await assert.rejects(nodeConnect(target));
  });
});
