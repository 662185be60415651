/**
 * A web application. Without arguments behind the pool that TLSPOOL_SOCKET names; with FOLDER it serves TLS itself, with
 * FOLDER/tls.key in its memory, as the twin that shows that a scan of memory finds keys. Says {port}.
 */
import { readFileSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import type net from 'node:net';
import type { TLSSocket } from 'node:tls';
import { attach } from 'libtlspool';

const folders = process.argv.slice(2);
const answer: http.RequestListener = (request, response) => {
  const socket = request.socket as TLSSocket;
  response.end(`${String(socket.getProtocol())} ${String(socket.getCertificate() !== null)}`);
};

async function ownKeys(): Promise<net.AddressInfo> {
  const credentials = folders.map((folder) => ({ cert: readFileSync(`${folder}/tls.crt`), key: readFileSync(`${folder}/tls.key`) }));
  const server = https.createServer({ cert: credentials.map(({ cert }) => cert), key: credentials.map(({ key }) => key) }, answer);
  await new Promise<void>((resolve) => { server.listen(0, '127.0.0.1', resolve); });
  return server.address() as net.AddressInfo;
}

const address = folders.length > 0 ? await ownKeys() : (await attach(http.createServer(answer), { host: '127.0.0.1', port: 0 })).address() as net.AddressInfo;
process.on('disconnect', () => { process.exit(0); });
process.send?.({ port: address.port });
