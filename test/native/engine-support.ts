/** An engine in this process, with events that tests can wait for, and peers made with Node's own TLS. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import tls from 'node:tls';
import { engine as addon } from 'tlspool/dist/engine.js';
import type { Context, ContextSpec, Engine, EngineEvent, EngineOptions, KeyPairSpec, Selector } from 'tlspool/dist/engine.js';
import { sockets } from 'libtlspool/native';
import type { OwnedFd } from 'libtlspool/native';

export interface Certificates {
  readonly ca: Buffer;
  readonly server: KeyPairSpec;
  readonly rsa: KeyPairSpec;
  readonly client: KeyPairSpec;
  /** A client certificate that another authority issued. */
  readonly stranger: KeyPairSpec;
  readonly otherCa: Buffer;
  /** A name of which the certificate has a part only. */
  readonly partial: KeyPairSpec;
}

function openssl(folder: string, ...args: string[]): void {
  execFileSync('openssl', args, { cwd: folder, stdio: 'pipe' });
}

function issue(folder: string, ca: string, name: string, extension: string, key: string[]): KeyPairSpec {
  openssl(folder, 'req', '-newkey', ...key, '-nodes', '-keyout', `${name}.key`, '-out', `${name}.csr`, '-subj', `/CN=${name}`, '-addext', extension);
  openssl(folder, 'x509', '-req', '-in', `${name}.csr`, '-CA', `${ca}.crt`, '-CAkey', `${ca}.key`, '-CAcreateserial', '-days', '2', '-copy_extensions', 'copy', '-out', `${name}.crt`);
  return { chain: readFileSync(path.join(folder, `${name}.crt`)), key: readFileSync(path.join(folder, `${name}.key`)) };
}

export function makeCertificates(): Certificates {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'tlspool-engine-'));
  const ec = ['ec', '-pkeyopt', 'ec_paramgen_curve:P-256'];
  try {
    for (const ca of ['ca', 'other']) openssl(folder, 'req', '-x509', '-newkey', ...ec, '-nodes', '-keyout', `${ca}.key`, '-out', `${ca}.crt`, '-days', '2', '-subj', `/CN=${ca}`);
    return {
      ca: readFileSync(path.join(folder, 'ca.crt')),
      server: issue(folder, 'ca', 'server', 'subjectAltName=DNS:server.test,DNS:*.wild.test,IP:127.0.0.1', ec),
      rsa: issue(folder, 'ca', 'rsa', 'subjectAltName=DNS:server.test', ['rsa:2048']),
      client: issue(folder, 'ca', 'client', 'subjectAltName=DNS:client.test', ec),
      stranger: issue(folder, 'other', 'stranger', 'subjectAltName=DNS:stranger.test', ec),
      partial: issue(folder, 'ca', 'partial', 'subjectAltName=DNS:ser*.wild.test', ec),
      otherCa: readFileSync(path.join(folder, 'other.crt')),
    };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Certificates of roots `root 1`, `root 2`, ... */
export function manyRoots(count: number): Buffer[] {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'tlspool-engine-'));
  try {
    openssl(folder, 'ecparam', '-genkey', '-name', 'prime256v1', '-noout', '-out', 'root.key');
    return Array.from({ length: count }, (_, index) => {
      openssl(folder, 'req', '-x509', '-key', 'root.key', '-out', 'root.crt', '-days', '2', '-subj', `/CN=root ${String(index + 1)}`);
      return readFileSync(path.join(folder, 'root.crt'));
    });
  } finally {
    rmSync(folder, { recursive: true });
  }
}

type Kind = EngineEvent['kind'];
export type EventOf<K extends Kind> = Extract<EngineEvent, { kind: K }>;

/** Starts an engine; close() it in afterEach. */
export class Rig {
  readonly engine: Engine;
  readonly events: EngineEvent[] = [];
  /** Set false to see whether something waits for the `closed` event's descriptor. */
  closePlain = true;
  #wake: (() => void)[] = [];

  constructor(readonly certificates: Certificates, options: Partial<EngineOptions> = {}) {
    this.engine = new addon.Engine({
      workers: 2, sessionsMax: 1000, handshakesMax: 100, handshakeMs: 5000, lingerMs: 500, ...options,
      onEvents: (events) => {
        for (const event of events) {
          this.events.push(event);
          if (event.kind === 'closed' && event.plainfd >= 0 && this.closePlain) sockets.close(event.plainfd as OwnedFd);
        }
        for (const wake of this.#wake.splice(0)) wake();
      },
    });
  }

  spec(changes: Partial<ContextSpec> = {}): ContextSpec {
    return {
      localid: 'server', revision: 1, keyPairs: [this.certificates.server], trust: this.certificates.ca,
      minVersion: 'TLSv1.2', maxVersion: 'TLSv1.3', ciphers: 'ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256',
      ciphersuites: 'TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256', groups: ['X25519MLKEM768', 'X25519', 'P-256'],
      preferServerCiphers: false, clientAuth: 'none', ticketLifetimeS: 3600, ticketTag: 'tag', ...changes,
    };
  }

  context(changes: Partial<ContextSpec> = {}): Context {
    return this.engine.context(this.spec(changes));
  }

  selector(context: Context = this.context()): Selector {
    return this.engine.selector({ names: [['server.test', context], ['*.wild.test', context]], noName: context });
  }

  listen(selector: Selector, more: Partial<Parameters<Engine['listen']>[1]> = {}): { port: number; listener: number } {
    const fd = sockets.tcpListen({ host: '127.0.0.1', port: 0 });
    const port = sockets.socketInfo(fd).local?.port ?? 0;
    return { port, listener: this.engine.listen(fd, { selector, ask: false, ...more }) };
  }

  /** The first event of a kind that `matches` and was not returned yet. */
  async event<K extends Kind>(kind: K, matches: (event: EventOf<K>) => boolean = () => true): Promise<EventOf<K>> {
    for (;;) {
      const at = this.events.findIndex((event) => event.kind === kind && matches(event as EventOf<K>));
      if (at >= 0) return this.events.splice(at, 1)[0] as EventOf<K>;
      await new Promise<void>((resolve) => this.#wake.push(resolve));
    }
  }

  close(): void {
    this.engine.stop();
  }
}

/** A client made with Node's TLS, connected and past its handshake. */
export async function connectTls(port: number, ca: Buffer, options: tls.ConnectionOptions = {}): Promise<tls.TLSSocket> {
  const socket = tls.connect({ host: '127.0.0.1', port, ca, servername: 'server.test', ...options });
  await new Promise<void>((resolve, reject) => {
    socket.once('secureConnect', resolve);
    socket.once('error', reject);
  });
  return socket;
}

/** Wraps the application's end of a session. */
export function application(fd: number): net.Socket {
  return new net.Socket({ fd, readable: true, writable: true, allowHalfOpen: true });
}

/** Everything up to the end of the stream. The socket stays usable for writing (an async iterator would destroy it). */
export async function readAll(stream: net.Socket): Promise<Buffer> {
  const chunks: Buffer[] = [];
  if (stream.readableEnded) return Buffer.alloc(0);
  stream.on('data', (chunk: Buffer) => chunks.push(chunk));
  await new Promise<void>((resolve, reject) => {
    stream.once('end', resolve);
    stream.once('error', reject);
    stream.once('close', () => { reject(new Error('closed before the end of the stream')); });
  });
  return Buffer.concat(chunks);
}

/** Resolves with the next chunk(s) until `octets` have arrived. */
export async function readSome(stream: net.Socket, octets: number): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let have = 0;
  while (have < octets) {
    const chunk = stream.read() as Buffer | null;
    if (chunk === null) {
      await new Promise<void>((resolve, reject) => {
        stream.once('readable', resolve);
        stream.once('error', reject);
        stream.once('end', () => { reject(new Error('ended early')); });
      });
      continue;
    }
    chunks.push(chunk);
    have += chunk.length;
  }
  return Buffer.concat(chunks);
}

export async function failure(promise: Promise<unknown>): Promise<Error & { code?: string }> {
  try {
    await promise;
  } catch (error) {
    return error as Error;
  }
  throw new Error('it succeeded, and should have failed');
}
