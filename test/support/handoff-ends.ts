/** Both ends of what a proxy stands between: backends in processes of their own, and TLS clients that say lines to them. */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import net from 'node:net';
import path from 'node:path';
import tls from 'node:tls';
import type { OwnedFd } from 'libtlspool/native';
import { killAtExit } from './cleanup.js';
import { until, within } from './wait.js';

/** A process of apps/handoff-app, with a hand-off socket as its descriptor 4. What it says is kept until it is asked for. */
export class Backend {
  readonly #child: ChildProcess;
  readonly #said: Record<string, string>[] = [];
  #heard: () => void = () => undefined;
  constructor(options: object, fd: OwnedFd, pool: string) {
    this.#child = spawn(process.execPath, [path.join(import.meta.dirname, 'apps/handoff-app.js'), JSON.stringify({ fd: 4, ...options })], {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc', fd], env: { ...process.env, TLSPOOL_SOCKET: pool },
    });
    killAtExit(this.pid);
    this.#child.on('message', (message) => { this.#said.push(message as Record<string, string>); this.#heard(); });
  }
  get pid(): number { return this.#child.pid ?? 0; }
  get count(): number { return this.#said.length; }

  /** The next thing that it says under this key. */
  told(key: string): Promise<string> {
    return within(new Promise((resolve) => {
      this.#heard = () => {
        const at = this.#said.findIndex((message) => key in message);
        if (at >= 0) resolve(this.#said.splice(at, 1)[0]?.[key] ?? '');
      };
      this.#heard();
    }), `the backend to say ${key}`);
  }
  signal(name: NodeJS.Signals): void { this.#child.kill(name); }
  async end(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const gone = once(this.#child, 'exit');
    this.#child.kill('SIGKILL');
    await within(gone, 'the backend to end');
  }
}

/** A TLS client that says lines. */
export class LineClient {
  readonly socket: tls.TLSSocket;
  readonly #tcp: net.Socket;
  text = '';
  constructor(port: number, ca: Buffer) {
    this.#tcp = net.connect(port, '127.0.0.1');
    this.socket = tls.connect({ socket: this.#tcp, servername: 'localhost', ca });
    this.#tcp.on('error', () => undefined);
    this.socket.on('error', () => undefined);
    this.socket.setEncoding('latin1').on('data', (chunk: string) => { this.text += chunk; });
  }
  get ready(): Promise<unknown> { return within(once(this.socket, 'secureConnect'), 'the handshake'); }
  get closed(): Promise<unknown> { return this.socket.closed ? Promise.resolve() : within(once(this.socket, 'close'), 'the connection to close'); }
  /** Exports what the backend is asked to export. */
  get exported(): string { return this.socket.exportKeyingMaterial(16, 'EXPORTER-handoff', undefined as unknown as Buffer).toString('hex'); }
  /** Ends TCP without close_notify. */
  cut(): void { this.#tcp.end(); }
  async say(line: string): Promise<string> {
    this.text = '';
    this.socket.write(`${line}\n`);
    await until(() => this.text.endsWith('\n'), { what: `an answer to ${line}` });
    return this.text.trimEnd();
  }
}
