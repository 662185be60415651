/**
 * A TLS 1.3 client (RFC 8446) that does exactly what it is told, wrong things too: one suite (TLS_AES_128_GCM_SHA256), one group
 * (X25519), no verification of anything. For tests that need to send what no library would.
 */
import { createCipheriv, createDecipheriv, createHash, createHmac, createPublicKey, diffieHellman, generateKeyPairSync, randomBytes } from 'node:crypto';
import type { KeyObject } from 'node:crypto';
import { RawTcp } from './raw-tcp.js';
import { clientHello, contentType, extension, handshake, handshakeType, hostName, record, u16, vector } from './tls-wire.js';
import { defaultDeadlineMs } from './wait.js';

export interface Alert { readonly level: number; readonly description: number; /** Arrived encrypted. */ readonly sealed: boolean }

const sha256 = (...parts: readonly Buffer[]): Buffer => createHash('sha256').update(Buffer.concat(parts)).digest();
const hmac = (key: Buffer, data: Buffer): Buffer => createHmac('sha256', key).update(data).digest();

/** HKDF-Expand-Label, RFC 8446 section 7.1. One block of output is all that SHA-256 suites need here. */
function expandLabel(secret: Buffer, label: string, context: Buffer, length: number): Buffer {
  const info = Buffer.concat([u16(length), vector(1, Buffer.from(`tls13 ${label}`)), vector(1, context), Buffer.from([1])]);
  return hmac(secret, info).subarray(0, length);
}

const empty = Buffer.alloc(0);
const zeros = Buffer.alloc(32);

/** Traffic keys of one direction. */
class Direction {
  #secret: Buffer;
  #key: Buffer = empty;
  #iv: Buffer = empty;
  #sequence = 0n;

  constructor(secret: Buffer) { this.#secret = secret; this.#derive(); }

  /** RFC 8446 section 7.2. */
  update(): void { this.#secret = expandLabel(this.#secret, 'traffic upd', empty, 32); this.#derive(); }
  finishedKey(): Buffer { return expandLabel(this.#secret, 'finished', empty, 32); }

  seal(type: number, content: Buffer, padding: number): Buffer {
    const inner = Buffer.concat([content, Buffer.from([type]), Buffer.alloc(padding)]);
    const header = Buffer.concat([Buffer.from([contentType.applicationData, 3, 3]), u16(inner.length + 16)]);
    const cipher = createCipheriv('aes-128-gcm', this.#key, this.#nonce()).setAAD(header);
    return Buffer.concat([header, cipher.update(inner), cipher.final(), cipher.getAuthTag()]);
  }

  open(header: Buffer, body: Buffer): { type: number; content: Buffer } {
    const decipher = createDecipheriv('aes-128-gcm', this.#key, this.#nonce()).setAAD(header).setAuthTag(body.subarray(-16));
    const inner = Buffer.concat([decipher.update(body.subarray(0, -16)), decipher.final()]);
    let end = inner.length;
    while (end > 0 && inner[end - 1] === 0) end--;
    return { type: inner[end - 1] ?? 0, content: inner.subarray(0, Math.max(end - 1, 0)) };
  }

  #derive(): void {
    this.#key = expandLabel(this.#secret, 'key', empty, 16);
    this.#iv = expandLabel(this.#secret, 'iv', empty, 12);
    this.#sequence = 0n;
  }

  #nonce(): Buffer {
    const nonce = Buffer.from(this.#iv);
    nonce.writeBigUInt64BE(nonce.readBigUInt64BE(4) ^ this.#sequence++, 4);
    return nonce;
  }
}

const x25519Prefix = Buffer.from('302a300506032b656e032100', 'hex');

export class MiniTls {
  readonly tcp: RawTcp;
  readonly alerts: Alert[] = [];
  /** Post-handshake messages of the server by type, as they came. */
  readonly messages: { readonly type: number; readonly body: Buffer }[] = [];
  applicationData = Buffer.alloc(0);
  /** The server's Finished has been read. */
  serverDone = false;
  #offset = 0;
  #read: Direction | undefined;
  #write: Direction | undefined;
  #pending: Buffer = empty;
  #transcript: Buffer = empty;
  #keys: { publicKey: KeyObject; privateKey: KeyObject };
  #handshakeSecret: Buffer = empty;
  #applicationWrite: Direction | undefined;

  private constructor(tcp: RawTcp) {
    this.tcp = tcp;
    this.#keys = generateKeyPairSync('x25519');
    tcp.onOctets = () => { this.#consume(); };
  }

  /** Connects, sends a ClientHello and waits for the server's Finished. The client's is not sent yet. */
  static async start(port: number, servername = 'localhost'): Promise<MiniTls> {
    const mini = new MiniTls(await RawTcp.connect(port));
    mini.#sendHello(servername);
    await mini.when(() => mini.serverDone, 'the server to send its Finished');
    return mini;
  }

  /** A connection whose handshake is done. */
  static async connect(port: number, servername = 'localhost'): Promise<MiniTls> {
    const mini = await MiniTls.start(port, servername);
    mini.finish();
    return mini;
  }

  /** The client's Finished message, in the clear. */
  finished(): Buffer {
    if (this.#write === undefined) throw new Error('no keys yet');
    return handshake(handshakeType.finished, hmac(this.#write.finishedKey(), sha256(this.#transcript)));
  }

  /** Sends the client's Finished and switches to application keys. */
  finish(): void {
    this.send(contentType.handshake, this.finished());
    this.useApplicationKeys();
  }

  useApplicationKeys(): void { this.#write = this.#applicationWrite; }

  /** One sealed record under the current keys. */
  seal(type: number, content: Uint8Array, padding = 0): Buffer {
    if (this.#write === undefined) throw new Error('no keys yet');
    return this.#write.seal(type, Buffer.from(content), padding);
  }

  send(type: number, content: Uint8Array, padding = 0): void { this.tcp.send(this.seal(type, content, padding)); }
  /** A KeyUpdate (RFC 8446 section 4.6.3) and the new keys with it. */
  keyUpdate(requested: boolean): void {
    this.tcp.send(this.sealKeyUpdate(requested));
  }

  sealKeyUpdate(requested: boolean): Buffer {
    const sealed = this.seal(contentType.handshake, handshake(handshakeType.keyUpdate, Buffer.from([requested ? 1 : 0])));
    this.#write?.update();
    return sealed;
  }

  closeNotify(): void { this.send(contentType.alert, Buffer.from([1, 0])); }
  close(): void { this.tcp.close(); }
  keyUpdatesReceived(): number { return this.messages.filter(({ type }) => type === handshakeType.keyUpdate).length; }

  async when(look: () => boolean, what: string, deadlineMs = defaultDeadlineMs): Promise<void> {
    await this.tcp.when((tcp) => look() || tcp.ending !== null, what, deadlineMs);
    if (!look()) throw new Error(`the server ended the connection before ${what}; alerts ${JSON.stringify(this.alerts)}`);
  }

  #sendHello(servername: string): void {
    const share = this.#keys.publicKey.export({ type: 'spki', format: 'der' }).subarray(-32);
    const hello = clientHello({
      random: randomBytes(32), sessionId: randomBytes(32), suites: [0x1301], compression: Buffer.from([0]),
      extensions: [
        extension(0, hostName(servername)), extension(10, vector(2, u16(29))), extension(13, vector(2, Buffer.concat([u16(0x0403), u16(0x0804), u16(0x0401)]))),
        extension(43, vector(1, u16(0x0304))), extension(51, vector(2, Buffer.concat([u16(29), vector(2, share)]))), extension(45, vector(1, Buffer.from([1]))),
      ],
    });
    this.#transcript = hello;
    this.tcp.send(record(contentType.handshake, hello, 0x0301));
  }

  #consume(): void {
    const { received } = this.tcp;
    while (received.length - this.#offset >= 5) {
      const length = received.readUInt16BE(this.#offset + 3);
      if (received.length - this.#offset < 5 + length) break;
      const header = received.subarray(this.#offset, this.#offset + 5);
      const body = received.subarray(this.#offset + 5, this.#offset + 5 + length);
      this.#offset += 5 + length;
      this.#record(header, body);
    }
  }

  #record(header: Buffer, body: Buffer): void {
    if (header[0] === contentType.applicationData && this.#read !== undefined) {
      const { type, content } = this.#read.open(header, body);
      this.#content(type, content, true);
    } else {
      this.#content(header[0] ?? 0, body, false);
    }
  }

  #content(type: number, content: Buffer, sealed: boolean): void {
    if (type === contentType.alert) this.alerts.push({ level: content[0] ?? -1, description: content[1] ?? -1, sealed });
    else if (type === contentType.applicationData) this.applicationData = Buffer.concat([this.applicationData, content]);
    else if (type === contentType.handshake) this.#handshake(content);
  }

  #handshake(content: Buffer): void {
    this.#pending = Buffer.concat([this.#pending, content]);
    while (this.#pending.length >= 4) {
      const length = this.#pending.readUIntBE(1, 3);
      if (this.#pending.length < 4 + length) return;
      const message = this.#pending.subarray(0, 4 + length);
      this.#pending = this.#pending.subarray(4 + length);
      this.#message(message[0] ?? 0, message);
    }
  }

  #message(type: number, message: Buffer): void {
    if (this.serverDone) {
      this.messages.push({ type, body: message.subarray(4) });
      if (type === handshakeType.keyUpdate) this.#read?.update();
      return;
    }
    this.#transcript = Buffer.concat([this.#transcript, message]);
    if (type === handshakeType.serverHello) this.#handshakeKeys(message);
    if (type === handshakeType.finished) this.#applicationKeys();
  }

  /** RFC 8446 section 7.1, left to right. */
  #handshakeKeys(serverHello: Buffer): void {
    const share = serverShare(serverHello);
    const publicKey = createPublicKey({ key: Buffer.concat([x25519Prefix, share]), format: 'der', type: 'spki' });
    const shared = diffieHellman({ privateKey: this.#keys.privateKey, publicKey });
    const early = hmac(zeros, zeros);
    this.#handshakeSecret = hmac(expandLabel(early, 'derived', sha256(), 32), shared);
    const hash = sha256(this.#transcript);
    this.#write = new Direction(expandLabel(this.#handshakeSecret, 'c hs traffic', hash, 32));
    this.#read = new Direction(expandLabel(this.#handshakeSecret, 's hs traffic', hash, 32));
  }

  #applicationKeys(): void {
    const master = hmac(expandLabel(this.#handshakeSecret, 'derived', sha256(), 32), zeros);
    const hash = sha256(this.#transcript);
    this.#applicationWrite = new Direction(expandLabel(master, 'c ap traffic', hash, 32));
    this.#read = new Direction(expandLabel(master, 's ap traffic', hash, 32));
    this.serverDone = true;
  }
}

/** The key share in a ServerHello: the last 32 octets of extension 51. */
function serverShare(message: Buffer): Buffer {
  let at = 4 + 2 + 32;
  at += 1 + (message[at] ?? 0);
  at += 2 + 1 + 2;
  while (at + 4 <= message.length) {
    const length = message.readUInt16BE(at + 2);
    if (message.readUInt16BE(at) === 51) return message.subarray(at + 4 + length - 32, at + 4 + length);
    at += 4 + length;
  }
  throw new Error('the ServerHello has no key share');
}
