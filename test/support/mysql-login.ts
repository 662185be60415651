/** Logging in at MySQL behind the preamble, in both roles, with what its state says: the proof that the state is enough to go on from. */
import { createHash, timingSafeEqual } from 'node:crypto';
import type net from 'node:net';
import { mysqlPackets } from 'libtlspool/preamble';
import { event } from './wait.js';

const sha1 = (...parts: readonly Uint8Array[]): Buffer => parts.reduce((hash, part) => hash.update(part), createHash('sha1')).digest();
const xor = (one: Buffer, other: Buffer): Buffer => Buffer.from(one.map((octet, at) => octet ^ (other[at] ?? 0)));

/** mysql_native_password: SHA1(password) XOR SHA1(salt SHA1(SHA1(password))). */
function scramble(password: string, salt: Uint8Array): Buffer {
  const once = sha1(Buffer.from(password));
  return xor(once, sha1(salt, sha1(once)));
}

/** Twenty octets out of a greeting, in its two parts. */
function saltOf(greeting: Buffer): Buffer {
  const at = greeting.indexOf(0) + 1 + 4;
  return Buffer.concat([greeting.subarray(at, at + 8), greeting.subarray(at + 8 + 19, at + 8 + 19 + 12)]);
}

const packet = (sequence: number, body: Buffer): Buffer => Buffer.concat([Buffer.of(body.length & 0xff, body.length >> 8, 0, sequence), body]);
const okPacket = (sequence: number): Buffer => packet(sequence, Buffer.from('00000002000000', 'hex'));

/** The next packet with its header. */
async function nextPacket(socket: net.Socket): Promise<Buffer> {
  for (;;) {
    const head = socket.read(4) as Buffer | null;
    if (head !== null) {
      const length = head.readUIntLE(0, 3);
      for (;;) {
        const body = socket.read(length) as Buffer | null;
        if (body !== null) return Buffer.concat([head, body]);
        await event(socket, 'readable');
      }
    }
    await event(socket, 'readable');
  }
}

/** Client: logs in behind the handshake, and gives the server's answer. */
export async function mysqlLogin(socket: net.Socket, state: Uint8Array, user: string, password: string): Promise<Buffer> {
  const [greeting, request] = mysqlPackets(state);
  if (greeting === undefined || request === undefined) throw new Error('the state lacks a packet');
  const answer = scramble(password, saltOf(greeting));
  socket.write(packet(2, Buffer.concat([request, Buffer.from(`${user}\0`), Buffer.of(answer.length), answer, Buffer.from('\0mysql_native_password\0')])));
  return nextPacket(socket);
}

/** Server: takes the login behind the handshake; is it this user with this password? Says OK, and to every command after it. */
export async function mysqlServe(socket: net.Socket, state: Uint8Array, user: string, password: string): Promise<boolean> {
  const [greeting, request] = mysqlPackets(state);
  if (greeting === undefined || request === undefined) throw new Error('the state lacks a packet');
  const response = await nextPacket(socket);
  const rest = response.subarray(4 + 32);
  const end = rest.indexOf(0);
  const length = rest[end + 1] ?? 0;
  const given = rest.subarray(end + 2, end + 2 + length);
  const isRight = response[3] === 2 && rest.subarray(0, end).toString() === user && length === 20 && timingSafeEqual(given, scramble(password, saltOf(greeting)));
  socket.write(isRight ? okPacket(3) : packet(3, Buffer.from('ff1504#28000Access denied')));
  if (!isRight) return false;
  void answerCommands(socket);
  return true;
}

async function answerCommands(socket: net.Socket): Promise<void> {
  try {
    // COM_QUIT is 1, and has no answer.
    while ((await nextPacket(socket))[4] !== 1) socket.write(okPacket(1));
    socket.end();
  } catch {
    // It left without saying so.
  }
}
