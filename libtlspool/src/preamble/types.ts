/**
 * What comes before TLS in protocols that begin in plain text, as dialogues without input or output of their own.
 *
 * A dialogue is a generator: it yields what it needs from the connection or wants to say, and a `Conversation` (driver.ts)
 * carries that out, with limits and a deadline. So a protocol is one file of plain sequential code, and its tests need no socket.
 */
import type { PreambleName } from './registry.js';

/** One thing that a dialogue asks of the connection. Lines and octets come back as the value of `yield`; `write` gives an empty buffer. */
export type Step =
  /** A line without its CRLF (a lone LF also ends a line), of at most `most` octets. One octet more is PREAMBLE. A NUL or lone CR in it is too. */
  | {
    /** Read a line. */
    readonly do: 'line';
    /** Octets, without the end of the line. */
    readonly most: number;
  }
  /** Exactly so many octets. */
  | {
    /** Read octets. */
    readonly do: 'octets';
    /** No more and no fewer. */
    readonly count: number;
  }
  /** What has come: at least one octet, at most `most`. */
  | {
    /** Read what there is. */
    readonly do: 'some';
    /** Octets, 1 or more. */
    readonly most: number;
  }
  /** The next octet, left where it is: whoever gets the descriptor reads it. */
  | {
    /** Look at one octet. */
    readonly do: 'peek';
  }
  /** All of them are sent before the dialogue goes on. */
  | {
    /** Send. */
    readonly do: 'write';
    /** Not changed, and not kept. */
    readonly octets: Uint8Array;
  };

/** A dialogue that ends with a result, or throws TlsPoolError (PREAMBLE, PREAMBLE_REFUSED). */
export type Dialogue<Result> = Generator<Step, Result, Buffer>;

/** What the server side shows to a client before TLS. */
export interface Face {
  /** Our name, for greetings and for protocols that repeat it. */
  readonly hostname: string;
  /** Text of the greeting without its code or tag, as the backend said it; absent: one of our own. */
  readonly greeting?: string;
  /** Capabilities in the protocol's own spelling, one each ("SIZE 1000", "IDLE"), as the backend said them. Those about TLS and authentication are left out by serve(). */
  readonly capabilities?: readonly string[];
}

/** How a server treats a client that does not ask for TLS. */
export type TlsMode = 'required' | 'optional';

/** What serve() works by. */
export interface ServeOptions {
  /** What the client is shown. */
  readonly face: Face;
  /** required: commands that need TLS are refused. optional: the first of them ends the dialogue with `plain`. */
  readonly tls: TlsMode;
}

/** How the server's dialogue ended. */
export type ServerOutcome =
  | {
    /** The client's ClientHello comes next. */
    readonly next: 'tls';
    /** Sent when everything is ready for the ClientHello, and nothing is sent or read after it. Empty where TLS begins at once. */
    readonly goAhead: Uint8Array;
    /** Sent instead of the go-ahead when TLS cannot be offered now (RFC 3207 section 4.1: 454). The connection is closed after it. */
    readonly refusal: Uint8Array;
    /**
     * Nobody waits for a go-ahead (none, postgres without a request, mysql): the ClientHello may be there already, so octets in the kernel are no injection.
     * They are TLS or nothing: the pool gets all of them, and an alert is all that plain text gets from it.
     */
    readonly direct?: boolean;
    /** Application protocol that the client must offer by the rules of the protocol. */
    readonly alpn?: string;
    /** What a backend must know of the plain-text phase to go on from here (mysql). At most 4096 octets. */
    readonly state?: Uint8Array;
  }
  | {
    /** It goes on in plain text, with a backend that takes that. */
    readonly next: 'plain';
    /** Octets of the client that were read and belong to the backend: the command that ended the dialogue. What comes behind it is still in the kernel. */
    readonly ahead: Uint8Array;
    /** Brings a backend connection to where the client thinks it is (SMTP: EHLO); runs after settle(). Absent: nothing to do. */
    readonly introduce?: () => Dialogue<void>;
    /** What a backend that takes the client's own socket must know: the client's hello (SMTP, LMTP), its stream header (XMPP), our greeting (mysql). At most 4096 octets. */
    readonly state?: Uint8Array;
  }
  /** The client said goodbye, or was turned away in the words of the protocol; it was answered, and the connection is closed. */
  | {
    /** Nothing comes. */
    readonly next: 'end';
    /** Why it was turned away, for the log. Absent: it said goodbye. */
    readonly refused?: string;
  };

/** Why a connection is turned away before, or instead of, the service. */
export type Farewell = 'unavailable' | 'timeout' | 'limit' | 'syntax' | 'early';

/** The server role of a protocol. */
export interface ServerRole {
  /** Talks with a client from its first octet to the go-ahead. */
  readonly serve: (options: ServeOptions) => Dialogue<ServerOutcome>;
  /**
   * Talks with a plain-text backend that greets first: learns what to show, changes nothing and takes its leave. Absent: there is nothing to learn.
   * Throws PREAMBLE_REFUSED when the backend turns us away.
   */
  readonly learn?: (hostname: string) => Dialogue<Omit<Face, 'hostname'>>;
  /** The one mode in which a client sees anything of what learn() gives (xmpp: optional), so that nobody need be asked in the other. Absent: in both. */
  readonly learnOnly?: TlsMode;
  /**
   * Reads what a fresh plain-text backend says that the client must not see (again) once TLS is up, such as its greeting. Absent: nothing,
   * what the backend says goes to the client.
   */
  readonly settle?: () => Dialogue<void>;
  /** The protocol's own words for turning a client away, valid before TLS and behind it, before the client said anything; empty where it has none. */
  readonly farewell: (why: Farewell, face: Face) => Uint8Array;
  /** False: the state of the plain-text phase is needed behind it, so only a backend that takes descriptors can go on (mysql). */
  readonly plainBackend: boolean;
}

/** What a client's dialogue works by. */
export interface ClientOptions {
  /** Our name, for EHLO and the like. */
  readonly hostname: string;
  /** The server's name: XMPP domain, name for a proxy to connect to. */
  readonly remoteid: string;
  /** Port on the other side of an HTTP or SOCKS proxy. */
  readonly port?: number;
  /** For an HTTP or SOCKS proxy that wants to know who asks. Sent to it in plain text, where it asks for them (socks5) or at once (http-connect). */
  readonly credentials?: {
    /** UTF-8; at most 255 octets for socks5 (RFC 1929). */
    readonly user: string;
    /** The same. A secret: it is in no error and no log. */
    readonly password: string;
  };
}

/** How the client's dialogue ended; TLS begins with our ClientHello. */
export interface ClientOutcome {
  /** What the application must know of the plain-text phase (mysql: the server's greeting). */
  readonly state?: Uint8Array;
  /** Application protocol that must be offered by the rules of the protocol (postgres, direct TLS). */
  readonly alpn?: string;
}

/** The client role of a protocol: from the server's first octet to its go-ahead. Throws PREAMBLE_REFUSED when the server has no TLS. */
export type ClientRole = (options: ClientOptions) => Dialogue<ClientOutcome>;

/** One protocol. */
export interface Preamble {
  /** As in options and configurations: `imap`. */
  readonly name: PreambleName;
  /** For people: name and source, such as "IMAP (RFC 9051 section 6.2.1)". */
  readonly title: string;
  /** Absent for ways through a proxy, which only clients take. */
  readonly server?: ServerRole;
  /** Absent: no client of it is known here. */
  readonly client?: ClientRole;
}
