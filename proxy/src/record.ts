/** What is known of one connection, for the one line that the log gets of it. */
import { escapeText } from 'libtlspool/protocol';
import type { Endpoint, EventBody, SessionInfo } from 'libtlspool/protocol';
import { asPoolError } from './faults.js';

/** How a connection ended, from the proxy's point of view. */
export type Ending =
  /** The backend has it, and the proxy hears no more of it. */
  | 'handed-over'
  /** As the pool reported it. */
  | EventBody<'closed'>['how']
  /** The client left, or said goodbye, before TLS. */
  | 'left'
  /** It was turned away: `error` says why. */
  | 'refused'
  /** Relayed in plain text to its end. */
  | 'plain'
  /** The proxy lost sight of it: the pool went away, or the proxy ended first. */
  | 'unknown';

/** Filled as the connection goes on; everything of a peer's is escaped when it is read for the log. */
export class ConnectionRecord {
  readonly #startedAt = performance.now();
  servername: string | undefined;
  tls: SessionInfo | undefined;
  backend: string | undefined;
  octetsIn = 0;
  octetsOut = 0;
  ending: Ending = 'unknown';
  error: { readonly code: string; readonly text: string } | undefined;

  constructor(readonly service: string, readonly listener: string, public remote: Endpoint | undefined) {}

  /** It was turned away, or left. What went wrong first is the cause. */
  failed(thrown: unknown): void {
    const { code, message } = asPoolError(thrown);
    this.error ??= { code, text: message };
    this.ending = code === 'PEER_CLOSED' ? 'left' : 'refused';
  }

  /** Of the pool's last word. */
  closed(event: EventBody<'closed'> | undefined): void {
    this.ending = event?.how ?? 'unknown';
    this.octetsIn = event?.octetsReceived ?? 0;
    this.octetsOut = event?.octetsSent ?? 0;
  }

  /** Without TLS: what went through the proxy, or undefined when the backend has the client's own socket. */
  relayed(octets: { readonly octetsIn: number; readonly octetsOut: number } | undefined): void {
    this.ending = octets === undefined ? 'handed-over' : 'plain';
    this.octetsIn = octets?.octetsIn ?? 0;
    this.octetsOut = octets?.octetsOut ?? 0;
  }

  /** For the log, with nothing secret in it. Absent things are absent. */
  fields(): Record<string, unknown> {
    const { tls, remote, error } = this;
    const servername = this.servername ?? tls?.servername;
    return {
      service: this.service,
      listener: this.listener,
      ...(remote !== undefined && { peer: remote.family === 'unix' ? 'unix' : remote.family === 'IPv6' ? `[${remote.address}]:${remote.port}` : `${remote.address}:${remote.port}` }),
      ...(servername !== undefined && { servername: escapeText(servername, 255) }),
      ...(tls !== undefined && { protocol: tls.protocol, cipher: tls.cipher, resumed: tls.resumed, authorized: tls.authorized }),
      ...(tls?.localid !== undefined && { localid: tls.localid }),
      ...(tls?.alpn !== undefined && { alpn: escapeText(tls.alpn, 255) }),
      ...(this.backend !== undefined && { backend: this.backend }),
      octetsIn: this.octetsIn,
      octetsOut: this.octetsOut,
      durationMs: Math.round(performance.now() - this.#startedAt),
      ended: this.ending,
      ...(error !== undefined && { code: error.code, error: error.text }),
    };
  }
}
