import assert from 'node:assert/strict';
import http from 'node:http';
import net from 'node:net';
import { Agent, connectPool } from 'libtlspool';
import type { Pool } from 'libtlspool';
import { readFileSync } from 'node:fs';
import tls from 'node:tls';
import { contentType, event, expectBaseline, MiniTls, serve, startPool, within } from '../support/index.js';
import type { Baseline, Served, TestPool } from '../support/index.js';

/** How the body of a message ended for who reads it. */
const ending = (message: http.IncomingMessage): Promise<string> => within(new Promise((resolve) => {
  let body = '';
  message.setEncoding('utf8').on('data', (text: string) => { body += text; });
  message.once('end', () => { resolve(`complete: ${body}`); });
  message.once('error', (error: NodeJS.ErrnoException) => { resolve(`failed: ${error.code ?? error.message}`); });
}), 'the end of the body');

describe('a truncated stream never looks complete', function () {
  this.timeout(30_000);
  let pool: TestPool;
  let client: Pool;
  let baseline: Baseline;

  before(async () => {
    pool = await startPool({ identities: [{ localid: 'localhost', policy: 'intermediate', default: true, trust: true }] });
    client = await connectPool({ path: pool.socket });
    baseline = pool.baseline();
  });

  after(async () => {
    await expectBaseline(pool, baseline);
    client.close();
    await pool.stop();
  });

  describe('an upload', () => {
    let served: Served;
    let seen: Promise<string>;
    let gotRequest: (ending: Promise<string>) => void = () => undefined;

    before(async () => {
      const server = http.createServer((request, response) => {
        gotRequest(ending(request));
        request.on('end', () => { response.end('thanks'); });
      });
      server.on('clientError', (_error, socket) => { socket.destroy(); });
      served = await serve(pool, server);
    });
    beforeEach(() => { seen = new Promise((resolve, reject) => { gotRequest = (body) => { body.then(resolve, reject); }; }); });
    after(async () => { await served.close(); });

    const start = async (body: string): Promise<MiniTls> => {
      const mini = await MiniTls.connect(served.port);
      mini.send(contentType.applicationData, Buffer.from(`POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n${body}`));
      return mini;
    };

    it('that a FIN cuts off fails', async () => {
      const mini = await start('5\r\nhello\r\n');
      mini.tcp.finish();
      assert.match(await seen, /^failed: /u);
      mini.close();
    });

    it('that is complete, and then cut off without close_notify, was complete', async () => {
      const mini = await start('5\r\nhello\r\n0\r\n\r\n');
      assert.equal(await seen, 'complete: hello');
      mini.tcp.finish();
      await mini.tcp.ended();
      mini.close();
    });
  });

  describe('an answer without a length, which only the end of the stream ends', () => {
    /** A TLS server of node:tls that answers, and then ends as told: with close_notify or with the bare FIN of somebody in between. */
    async function answerOf(cut: boolean): Promise<string> {
      const folder = pool.identityDir('localhost');
      const server = tls.createServer({ cert: readFileSync(`${folder}/tls.crt`), key: readFileSync(`${folder}/tls.key`) }, (socket) => {
        socket.on('error', () => undefined);
        socket.once('data', () => {
          const answer = 'HTTP/1.0 200 OK\r\n\r\nthe whole truth';
          if (cut) socket.write(answer); else socket.end(answer);
        });
      });
      await new Promise<void>((resolve) => { server.listen(0, '127.0.0.1', resolve); });
      const relay = await cuttingRelay((server.address() as net.AddressInfo).port, cut);
      const agent = new Agent({ pool: client, localid: 'localhost' });
      let aborted = false;
      try {
        const request = http.get({ agent, protocol: 'https:', host: '127.0.0.1', servername: 'localhost', port: relay.port, path: '/' } as http.RequestOptions);
        // node:http tells an error of the socket to the request, and then takes what it has of such a body for the whole. The
        // request is looked at by nobody here: code that reads the answer alone must see the failure too.
        request.on('error', () => undefined);
        const response = await event<http.IncomingMessage>(request, 'response');
        const ended = ending(response);
        response.once('aborted', () => { aborted = true; });
        if (cut) response.once('data', () => { relay.cut(); });
        const outcome = await ended;
        assert.deepEqual([response.complete, response.readableEnded, aborted], [!cut, !cut, cut]);
        return outcome;
      } finally {
        agent.destroy();
        relay.close();
        server.close();
      }
    }

    it('fails for who reads it when a FIN cuts it off, and stays incomplete', async () => {
      assert.equal(await answerOf(true), 'failed: TRUNCATED');
    });

    it('is complete when close_notify ends it', async () => {
      assert.equal(await answerOf(false), 'complete: the whole truth');
    });
  });
});

/** Somebody in between, who can end the server's stream without being able to forge a close_notify. */
async function cuttingRelay(port: number, mayCut: boolean): Promise<{ port: number; cut(): void; close(): void }> {
  let inward: net.Socket | undefined;
  let outward: net.Socket | undefined;
  const relay = net.createServer({ allowHalfOpen: true }, (socket) => {
    inward = socket;
    outward = net.connect({ port, host: '127.0.0.1' });
    for (const one of [inward, outward]) one.on('error', () => undefined);
    inward.pipe(outward);
    outward.pipe(inward);
  });
  await new Promise<void>((resolve) => { relay.listen(0, '127.0.0.1', resolve); });
  return {
    port: (relay.address() as net.AddressInfo).port,
    cut: () => {
      assert.ok(mayCut);
      if (inward !== undefined) outward?.unpipe(inward);
      inward?.end();
    },
    close: () => {
      inward?.destroy();
      outward?.destroy();
      relay.close();
    },
  };
}
