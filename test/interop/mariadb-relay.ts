/**
 * What a program must do that stands between the proxy and a MariaDB without TLS. The client has answered the salt of the proxy's greeting, and MariaDB has another
 * one: so the client is asked to answer again, to the salt of MariaDB (AuthSwitchRequest: MySQL Internals, "Authentication Method Change"). From MariaDB's verdict
 * on, octets pass as they are: sequence numbers begin anew with each command.
 */
import net from 'node:net';
import type { PoolSocket } from 'libtlspool';
import { mysqlPackets } from 'libtlspool/preamble';
import { event } from '../support/index.js';

const sslFlag = 0x800;
const plugin = 'mysql_native_password';
/** Of a login packet, before the name of the user: capabilities, longest packet, charset, and 23 octets of zero. */
const fixedOctets = 32;
const saltOctets = 20;

/** The next packet, without its header. */
async function readPacket(socket: net.Socket): Promise<Buffer> {
  const head = await readOctets(socket, 4);
  return readOctets(socket, head.readUIntLE(0, 3));
}

async function readOctets(socket: net.Socket, count: number): Promise<Buffer> {
  for (;;) {
    const octets = socket.read(count) as Buffer | null;
    if (octets !== null) return octets;
    if (socket.readableEnded || socket.destroyed) throw new Error('the connection ended');
    await event(socket, 'readable');
  }
}

const packet = (sequence: number, ...parts: readonly Uint8Array[]): Buffer => {
  const body = Buffer.concat(parts);
  const head = Buffer.of(0, 0, 0, sequence);
  head.writeUIntLE(body.length, 0, 3);
  return Buffer.concat([head, body]);
};

/** Salt of a greeting, in its two parts. */
function saltOf(greeting: Buffer): Buffer {
  const at = greeting.indexOf(0) + 1 + 4;
  return Buffer.concat([greeting.subarray(at, at + 8), greeting.subarray(at + 8 + 19, at + 8 + 19 + 12)]);
}

/** Capabilities that a greeting promises. */
function promisedBy(greeting: Buffer): number {
  const at = greeting.indexOf(0) + 1 + 4 + 8 + 1;
  return greeting.readUInt16LE(at) + greeting.readUInt16LE(at + 5) * 0x1_0000;
}

/**
 * The login packet of the client with another answer to the salt. In force is what the client can do and the proxy's greeting has promised; clients name more than
 * they then make use of. TLS is done, and is no business of MariaDB's.
 */
function loginWith(login: Buffer, answer: Buffer, promised: number): Buffer {
  const fixed = Buffer.from(login.subarray(0, fixedOctets));
  fixed.writeUInt32LE((fixed.readUInt32LE(0) & promised & ~sslFlag) >>> 0, 0);
  const nameEnd = login.indexOf(0, fixedOctets) + 1;
  const answerEnd = nameEnd + 1 + (login[nameEnd] ?? 0);
  return Buffer.concat([fixed, login.subarray(fixedOctets, nameEnd), Buffer.of(answer.length), answer, login.subarray(answerEnd)]);
}

/** Serves one connection to its end. */
export async function relayToMariadb(client: PoolSocket, port: number): Promise<void> {
  const server = net.connect(port, '127.0.0.1');
  for (const [one, other] of [[client, server], [server, client]] as const) one.on('error', () => { other.destroy(); });
  const [greeting] = mysqlPackets(client.preamble?.state ?? Buffer.alloc(0));
  try {
    if (greeting === undefined) throw new Error('there is no state of the preamble');
    const login = await readPacket(client);
    const salt = saltOf(await readPacket(server));
    client.write(packet(3, Buffer.of(0xfe), Buffer.from(`${plugin}\0`), salt.subarray(0, saltOctets), Buffer.of(0)));
    server.write(packet(1, loginWith(login, await readPacket(client), promisedBy(greeting))));
    client.write(packet(5, await readPacket(server)));
    client.pipe(server).pipe(client);
  } catch {
    client.destroy();
    server.destroy();
  }
}
