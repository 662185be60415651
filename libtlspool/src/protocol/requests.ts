/** The part of the message table that clients begin: see messages.ts. */
import { certificateNames, clientAuth, counters, ctlkey, endpoint, listenerInfo, name, negotiation, none, service, sessionInfo } from './bodies.js';
import { bin, bool, list, map, optional, secret, text, uint, word } from './schema.js';

/** Requests: client to pool. `operator` ones need root or the daemon's own uid. */
export const requests = {
  hello: {
    request: { body: map({ versions: list(uint(65_535), 16), client: text(128) }), fds: [] },
    reply: { body: map({ version: uint(65_535), pool: text(128), maxMessageOctets: uint() }), fds: [] },
    operator: false,
    doc: 'First message on a connection: agree on the protocol version.',
  },
  ping: {
    request: { body: map({ payload: optional(bin(1024)) }), fds: [] },
    reply: { body: map({ payload: optional(bin(1024)), pool: text(128), pid: uint(), uptimeMs: uint(Number.MAX_SAFE_INTEGER) }), fds: [] },
    operator: false,
    doc: 'Is the pool alive? Echoes the payload.',
  },
  listen: {
    request: {
      body: map({
        ...negotiation, share: optional(text(64)),
        /** Send `connection` and `closed` events. Default: true without a backend; with one, nobody waits for them. */
        report: optional(bool()),
      }),
      fds: ['listenfd'],
    },
    reply: { body: listenerInfo, fds: [] },
    operator: false,
    doc: 'Hand over a listening TCP or UNIX stream socket. Each connection comes as a `connection` event. `share` names the listener so that other connections of the same uid may `join` it.',
  },
  join: {
    request: { body: map({ share: text(64) }), fds: [] },
    reply: { body: listenerInfo, fds: [] },
    operator: false,
    doc: 'Take a share of the connections of a listener that another process of the same uid handed over.',
  },
  unlisten: {
    request: { body: map({ listener: uint() }), fds: [] },
    reply: { body: none, fds: [] },
    operator: false,
    doc: 'Stop accepting for this client; the last one to leave closes the listening socket. Sessions go on.',
  },
  starttls: {
    request: {
      body: map({
        ...negotiation,
        role: word('server', 'client'),
        /** Client role: the name or address that the server\'s certificate must carry; sent as SNI when it is a name. */
        remoteid: optional(name),
        /** Client role: SNI to send instead of remoteid; the empty string sends none. */
        servername: optional(name),
        handshakeMs: optional(uint(3_600_000)),
        /** The session outlives the connection that started it. */
        fork: optional(bool()),
      }),
      fds: ['cryptfd', 'plainfd?'],
    },
    reply: { body: map({ ctlkey, info: sessionInfo }), fds: ['plainfd?'] },
    operator: false,
    doc: 'Protect a connected stream socket. Without plainfd and backend the reply carries one end of a new socket pair.',
  },
  prng: {
    request: { body: map({ ctlkey, label: text(255), context: optional(bin(16_384)), length: uint(4096) }), fds: [] },
    reply: { body: map({ octets: secret(4096) }), fds: [] },
    operator: false,
    doc: 'Keying material exporter (RFC 5705, RFC 8446 section 7.5).',
  },
  info: {
    request: { body: map({ ctlkey }), fds: [] },
    reply: {
      body: map({
        info: sessionInfo,
        /** Of the leaf that the peer showed, and of our own; absent where there is none. */
        peerNames: optional(certificateNames), localNames: optional(certificateNames),
        /** Channel bindings: RFC 5929 (tls-unique on TLS 1.2 only) and RFC 9266. */
        tlsUnique: optional(bin(64)), tlsServerEndPoint: optional(bin(64)), tlsExporter: optional(bin(32)),
      }),
      fds: [],
    },
    operator: false,
    doc: 'Session information and channel bindings.',
  },
  reauthenticate: {
    request: {
      body: map({
        ctlkey,
        /** A client that shows no certificate, or one that is not accepted, ends the session. Default: it goes on without a client identity. */
        require: optional(bool()),
        /** Identity whose trust and access rules decide on the certificate. Default: that of the session. */
        localid: optional(name),
        /** How long the client may take, 1 to 3600000 ms. Default: as long as for a handshake. */
        timeoutMs: optional(uint(3_600_000)),
      }),
      fds: [],
    },
    reply: {
      body: map({
        /** authenticated: a certificate was verified. refused: the client showed none. rejected: what it showed was not accepted; `info` says why. */
        outcome: word('authenticated', 'refused', 'rejected'),
        /** As it is from now on. */
        info: sessionInfo,
      }),
      fds: [],
    },
    operator: false,
    doc: 'Server role: ask the client for a certificate while the session runs (RFC 8446 section 4.6.2; TLS 1.2: renegotiation, RFC 5746). Octets keep flowing. With `require`, anything but `authenticated` ends the session and is answered by REAUTH_REFUSED.',
  },
  detach: {
    request: { body: map({ ctlkey }), fds: [] },
    reply: { body: none, fds: [] },
    operator: false,
    doc: 'Give up control of a session without ending it.',
  },
  reattach: {
    request: { body: map({ ctlkey }), fds: [] },
    reply: { body: map({ info: sessionInfo }), fds: [] },
    operator: false,
    doc: 'Take control of a detached session.',
  },
  close: {
    request: { body: map({ ctlkey, abort: optional(bool()) }), fds: [] },
    reply: { body: none, fds: [] },
    operator: false,
    doc: 'End a session: close_notify both ways, or at once with `abort`.',
  },
  register: {
    request: {
      body: map({
        service,
        /** How long the client may take for one answer, 1 to 600000 ms; what waits for it ends earlier where its own deadline does. Default: 60000. */
        timeoutMs: optional(uint(600_000)),
      }),
      fds: [],
    },
    reply: { body: none, fds: [] },
    operator: false,
    doc: 'Offer a service to the pool until the connection ends: it then asks by the callbacks `identity` (chooser, one per user) or `pin` (one per pool, operators only). SERVICE_TAKEN while somebody else offers it.',
  },
  unregister: {
    request: { body: map({ service }), fds: [] },
    reply: { body: none, fds: [] },
    operator: false,
    doc: 'Offer a service no longer. What waits for an answer is refused; a PIN that was given before is still tried before the reply. BAD_STATE when this connection does not offer it.',
  },
  forget: {
    request: {
      body: map({
        /** The remote that a choice was made for. Default: all. */
        remoteid: optional(name),
      }),
      fds: [],
    },
    reply: { body: map({ forgotten: uint() }), fds: [] },
    operator: false,
    doc: 'Forget choices of a chooser that were remembered for this user.',
  },
  taken: {
    request: {
      body: map({
        /** Of the connection that was handed over; absent for a `plainConnection`, which has none. */
        ctlkey: optional(ctlkey),
      }),
      fds: [],
    },
    reply: {
      body: map({
        /** The proxy stays and passes requests about this session on to the pool. Otherwise it has detached the session and leaves. */
        relay: optional(bool()),
      }),
      fds: [],
    },
    operator: false,
    doc: 'Hand-off sockets only: the backend owns the connection from now on. A pool answers BAD_STATE.',
  },
  status: {
    request: { body: none, fds: [] },
    reply: {
      body: map({
        pool: text(128), pid: uint(), uptimeMs: uint(Number.MAX_SAFE_INTEGER), node: text(64), openssl: text(64), workers: uint(),
        state: word('running', 'draining'), socket: text(107), config: optional(text(4096)),
        clients: uint(), listeners: uint(), sessions: uint(), handshakes: uint(), identities: uint(),
        handshakesDone: uint(Number.MAX_SAFE_INTEGER), handshakesFailed: uint(Number.MAX_SAFE_INTEGER),
        handshakesResumed: uint(Number.MAX_SAFE_INTEGER), ...counters,
        /** Wall-clock milliseconds of the last reload that succeeded, and the text of one that failed since. */
        reloadedAtMs: optional(uint(Number.MAX_SAFE_INTEGER)), reloadError: optional(text(4096)),
      }),
      fds: [],
    },
    operator: true,
    doc: 'Counters and state of the pool.',
  },
  sessions: {
    request: { body: map({ after: optional(uint(Number.MAX_SAFE_INTEGER)), limit: optional(uint(500)) }), fds: [] },
    reply: {
      body: map({
        sessions: list(map({
          session: uint(Number.MAX_SAFE_INTEGER), role: word('server', 'client'), protocol: word('TLSv1.2', 'TLSv1.3'), cipher: text(64), group: optional(text(64)),
          alpn: optional(text(255)), servername: optional(name), localid: optional(name), revision: optional(uint()),
          resumed: bool(), authorized: bool(), subject: optional(text(512)), remote: optional(endpoint),
          /** Process and user of the client that owns the session; absent when it is detached. */
          ownerPid: optional(uint()), ownerUid: optional(uint()), startedAtMs: uint(Number.MAX_SAFE_INTEGER),
        }), 500),
        /** Pass as `after` to get the next page; absent on the last. */
        next: optional(uint(Number.MAX_SAFE_INTEGER)),
      }),
      fds: [],
    },
    operator: true,
    doc: 'Established sessions, a page at a time.',
  },
  identities: {
    request: { body: map({ after: optional(name) }), fds: [] },
    reply: {
      body: map({
        identities: list(map({
          localid: name, names: list(name, 256), revision: uint(), source: text(4096), policy: word('modern', 'intermediate'),
          clientAuth, isDefault: bool(),
          certificates: list(map({
            subject: text(512), issuer: text(512), serial: text(80), keyType: text(32), fingerprint: text(64),
            notBeforeMs: uint(Number.MAX_SAFE_INTEGER), notAfterMs: uint(Number.MAX_SAFE_INTEGER),
          }), 8),
          trustRoots: uint(),
          /** Its key waits for a PIN. With a revision that serves: only for TLS clients, because the pool's own trust has changed. */
          locked: optional(bool()),
        }), 1000),
        /** Pass as `after` to get the next page; absent on the last. */
        next: optional(name),
      }),
      fds: [],
    },
    operator: true,
    doc: 'Identities as they are published now, in the order of their names, a page at a time.',
  },
  reload: {
    request: { body: none, fds: [] },
    reply: { body: map({ changed: list(name, 1000), unchanged: uint() }), fds: [] },
    operator: true,
    doc: 'Read configuration and credentials again, all or nothing.',
  },
} as const;
