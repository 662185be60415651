/** Reaching a plain-text backend over TCP or a UNIX stream socket: what it is asked, and the connection that a session gets. */
import { Conversation, dial, nameOf } from 'libtlspool/preamble';
import type { Face, ServerRole } from 'libtlspool/preamble';
import { sockets } from 'libtlspool/native';
import type { BorrowedFd, OwnedFd } from 'libtlspool/native';
import { TlsPoolError } from 'libtlspool/protocol';
import type { BackendConfig } from '../config/types.js';
import type { Origin } from '../origin.js';

/** A backend that is connected to. */
export type ConnectConfig = Extract<BackendConfig, { handoff: 'connect' }>;

/** Bounds of one exchange with a backend. */
export interface BackendLimits {
  /** In milliseconds, from connecting to the end of what is said. */
  readonly deadlineMs: number;
  /** Ends it with ABORTED. */
  readonly signal?: AbortSignal;
}

/** Makes a PROXY header: of a connection of a client, with what is known of TLS by then, or of our own ("LOCAL"), whose ends are given. */
export type HeaderMaker = (version: 1 | 2, own: Origin) => Uint8Array;

/**
 * A fresh connection on which `talk` has been carried out, with the PROXY header before it. Rejects with BACKEND_FAILED in all cases but ABORTED;
 * nothing stays open then. The descriptor is the caller's.
 */
export async function openBackend(config: ConnectConfig, header: HeaderMaker, talk: (with_: Conversation) => Promise<void>, limits: BackendLimits): Promise<OwnedFd> {
  const until = performance.now() + limits.deadlineMs;
  const name = nameOf(config.to);
  let fd: OwnedFd | undefined;
  let conversation: Conversation | undefined;
  try {
    fd = await dial(config.to, limits);
    conversation = new Conversation(fd, { ...limits, deadlineMs: Math.max(1, Math.ceil(until - performance.now())) });
    if (config.proxyProtocol !== 0) await conversation.write(header(config.proxyProtocol, endsOf(fd)));
    await talk(conversation);
    conversation.close();
    return fd;
  } catch (error) {
    conversation?.close();
    if (fd !== undefined) sockets.close(fd);
    if (!(error instanceof TlsPoolError) || error.code === 'ABORTED') throw error;
    throw new TlsPoolError('BACKEND_FAILED', { text: `backend ${name}: ${error.message}`, cause: error });
  }
}

function endsOf(fd: BorrowedFd): Origin {
  const { remote, local } = sockets.socketInfo(fd);
  return { remote, local };
}

/** For how long what a backend said of itself is shown to further clients, so that a busy service does not connect twice for each. */
const learntMs = 1000;

/** What a backend says of itself. */
export type Learnt = Omit<Face, 'hostname'>;

/** Who is asked, and how. */
export interface FaceQuestion {
  readonly protocol: string;
  readonly config: ConnectConfig;
  readonly learn: NonNullable<ServerRole['learn']>;
  /** Our name, on which the answer may depend (XMPP). */
  readonly hostname: string;
  readonly header: HeaderMaker;
}

/** What plain-text backends say of themselves: asked over connections of their own, each at most once a second. */
export class Faces {
  readonly #learnt = new Map<string, { readonly at: number; readonly face: Promise<Learnt> }>();

  /** Rejects with BACKEND_FAILED. */
  async of({ protocol, config, learn, hostname, header }: FaceQuestion, limits: BackendLimits): Promise<Learnt> {
    const name = `${nameOf(config.to)} ${config.proxyProtocol} ${protocol} ${hostname}`;
    const known = this.#learnt.get(name);
    if (known !== undefined && performance.now() - known.at < learntMs) return known.face;
    const face = ask(config, (conversation) => conversation.run(learn(hostname)), header, limits);
    this.#learnt.set(name, { at: performance.now(), face });
    // A failure is nobody's but those who waited for it: the next client tries again.
    face.catch(() => { if (this.#learnt.get(name)?.face === face) this.#learnt.delete(name); });
    return face;
  }
}

async function ask(config: ConnectConfig, learn: (with_: Conversation) => Promise<Learnt>, header: HeaderMaker, limits: BackendLimits): Promise<Learnt> {
  let face: Learnt = {};
  sockets.close(await openBackend(config, header, async (conversation) => { face = await learn(conversation); }, limits));
  return face;
}
