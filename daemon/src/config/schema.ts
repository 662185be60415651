/**
 * The keys of the configuration file. The types, the checks and the table of docs/configuration.md all come from here:
 * `describe` is the key's documentation, and a test keeps the table and the schema together.
 */
import { highestMaxMessageOctets } from 'libtlspool/protocol';
import { account, file, hostName, int, localid, oneOrMore, socketMode } from 'tlspool-common/config';
import { z } from 'zod';
import { peerNameKinds, type PeerNameKind } from '../policy/peers.js';

const glob = z.string().min(1).max(255);

/** `90s`, `15m`, `1h`, `7d`; seconds result. */
export function parseDuration(text: string): number | undefined {
  const [, count, unit] = /^(\d{1,7})(s|m|h|d)$/.exec(text) ?? [];
  return count === undefined ? undefined : Number(count) * { s: 1, m: 60, h: 3600, d: 86_400 }[unit as 's' | 'm' | 'h' | 'd'];
}

/** A duration of so many seconds; `range` says it in words. */
const duration = (min: number, max: number, range: string) => z.string().transform((value, context) => {
  const seconds = parseDuration(value);
  if (seconds !== undefined && seconds >= min && seconds <= max) return seconds;
  context.issues.push({ code: 'custom', input: value, message: `a duration ${range}, written as a number with s, m, h or d, such as 1h` });
  return z.NEVER;
});

// RFC 8446 section 4.6.1: ticket_lifetime is at most 604800 seconds.
const ticketLifetime = duration(60, 604_800, 'from 1m to 7d');

const socket = z.strictObject({
  path: file.optional().describe('Where clients connect. Default: `/run/tlspool/pool.sock` for root, else `$XDG_RUNTIME_DIR/tlspool/pool.sock`, else `pool.sock` in the state folder. At most 107 octets. Change needs a restart.'),
  mode: socketMode.default(0o660).describe('Permissions of the socket, octal, `0600` to `0777`. Default `0660`. Who may do what is decided by `access` in any case. Change needs a restart.'),
  group: account('group', 'group').optional().describe('Group of the socket, name or number. Default: `tlspool` where that group exists and the pool may give it, else the pool\'s own. Change needs a restart.'),
}).describe('The socket of the pool protocol.');

const log = z.strictObject({
  level: z.enum(['debug', 'info', 'warn', 'error', 'silent']).default('info').describe('`debug`, `info`, `warn`, `error` or `silent`. Default `info`. Change needs a restart.'),
  format: z.enum(['json']).default('json').describe('`json`, one object a line; the one format there is so far. Default `json`.'),
}).describe('The log, on standard output.');

// Not a plain range: that the kernel does not carry more is worth saying.
const messageOctets = z.int().refine((value) => value >= 4096 && value <= highestMaxMessageOctets, {
  error: `a number of octets from 4096 to ${highestMaxMessageOctets}, which is what one packet of the pool socket can carry`,
});

const limits = z.strictObject({
  sessions: int(1, 1_000_000).default(20_000).describe('Sessions in all, handshakes included; listeners pause at the limit. 1 to 1000000, default 20000. Change needs a restart.'),
  sessionsPerClient: int(1, 1_000_000).default(10_000).describe('Sessions of one client (one uid). 1 to 1000000, default 10000.'),
  handshakes: int(1, 100_000).default(1024).describe('Handshakes in flight; listeners pause at the limit. 1 to 100000, default 1024. Change needs a restart.'),
  handshakeMs: int(100, 3_600_000).default(10_000).describe('Milliseconds in which a handshake must finish. 100 to 3600000, default 10000. Change needs a restart.'),
  messageOctets: messageOctets.default(65_536).describe('Octets in one message, both ways. 4096 to 131072, which is what a packet can carry, default 65536. Change needs a restart.'),
  clients: int(1, 100_000).default(512).describe('Connected clients. 1 to 100000, default 512. Change needs a restart.'),
  listenersPerClient: int(1, 10_000).default(64).describe('Listening sockets of one connection. 1 to 10000, default 64. Change needs a restart.'),
  requestsPerClient: int(1, 10_000).default(256).describe('Unanswered requests of one connection, handshakes (`starttls`, and `reauthenticate` once per session) not counted. 1 to 10000, default 256. Change needs a restart.'),
  lingerMs: int(0, 600_000).default(2000).describe('Milliseconds that a closing session waits for its peer after everything was sent. 0 to 600000, default 2000. Change needs a restart.'),
  queuedConnections: int(1, 100_000).default(1024).describe('Connections that wait for one slow client before its listeners pause. 1 to 100000, default 1024. Change needs a restart.'),
}).describe('What clients and peers may use up.');

const trust = z.strictObject({
  roots: z.array(file).min(1).max(64).optional().describe('PEM files with the roots for outgoing connections without an identity, and for identities without trust of their own. Default: `/etc/ssl/certs/ca-certificates.crt` where it exists.'),
}).describe('Trust of the pool itself.');

const peerEntries = (kind: PeerNameKind) => z.array(z.string().transform((value, context) => {
  const { parse, allowed } = peerNameKinds[kind];
  const entry = parse(value);
  if (entry !== undefined) return entry;
  context.issues.push({ code: 'custom', input: value, message: allowed });
  return z.NEVER;
})).max(1000).optional();

const peerNames = (verb: string) => z.strictObject({
  dns: peerEntries('dns').describe(`DNS names that are ${verb}; \`*.example.org\` covers one label.`),
  uri: peerEntries('uri').describe(`URIs that are ${verb}, such as \`spiffe://example.org/ns/*/sa/web\`: below the authority \`*\` is one segment, and \`**\` at the end all that follow.`),
  email: peerEntries('email').describe(`E-mail addresses that are ${verb}; the domain in any case.`),
  ip: peerEntries('ip').describe(`Addresses and networks that are ${verb}, such as \`192.0.2.0/24\`.`),
  cn: peerEntries('cn').describe(`Common names of the subject that are ${verb}, to the letter.`),
  ou: peerEntries('ou').describe(`Organizational units of the subject that are ${verb}, to the letter.`),
  spki: peerEntries('spki').describe(`Keys that are ${verb}: \`sha256:\` and the base64 of the SHA-256 of SubjectPublicKeyInfo. The chain must verify all the same.`),
});

const peers = z.strictObject({
  allow: peerNames('accepted').optional().describe('With any entry here, only certificates that match one are accepted. Needs `clientAuth`, unless the certificates of the identity are for clients only.'),
  deny: peerNames('refused').optional().describe('Certificates that match an entry here are refused; this wins over `allow`.'),
}).describe('Which certificates of peers are accepted, of those whose chain verifies. At most 1000 entries a list.');

const pkcs12 = z.strictObject({
  file: file.describe('PKCS#12 file with one private key, its certificate and the chain, mode 0600. Required.'),
  passwordFile: file.optional().describe('File whose first line is the password, mode 0600; an empty file is the empty password. Default: the identity is locked until a PIN entry (`tlspool unlock`) gives the password, and has no names meanwhile but those of `names`.'),
}).describe('Credentials in PKCS#12 (`.p12`, `.pfx`), instead of `directory` or `certificate`.');

const identity = z.strictObject({
  localid: localid.describe('Name of the identity, 1 to 255 octets, unique. Required.'),
  directory: file.optional().describe('Folder with `tls.crt`, `tls.key`, `ca.crt` and further pairs of `*.crt` and `*.key` for other key types. Without `directory`, `certificate` and `pkcs12`: the sub-folder of `identitiesDirectory` with this name.'),
  certificate: file.optional().describe('PEM chain, leaf first. Instead of `directory`; needs `key`.'),
  key: file.optional().describe('PEM private key, mode 0600. Needs `certificate`. An encrypted one (PKCS#8, `ENCRYPTED PRIVATE KEY`), here or in a folder, is locked until a PIN entry (`tlspool unlock`) opens it.'),
  pkcs12: pkcs12.optional(),
  trust: file.optional().describe('PEM roots for the certificates of peers. Only with `certificate` or `pkcs12`; a folder has `ca.crt`.'),
  names: z.array(hostName).max(256).default([]).describe('Server names (SNI) that this identity serves; `*.example.org` covers one label. Default: the DNS names of its certificates for servers. At most 256.'),
  policy: z.enum(['modern', 'intermediate']).default('intermediate').describe('`modern` (TLS 1.3 only) or `intermediate` (TLS 1.2 and 1.3). Default `intermediate`.'),
  clientAuth: z.enum(['none', 'request', 'require']).default('none').describe('Client certificates: `none`, `request` or `require`. The last two need trust roots. Default `none`.'),
  peers: peers.optional(),
  default: z.boolean().default(false).describe('Serves clients that send no server name or an unknown one. At most one identity. Default `false`.'),
  ticketLifetime: ticketLifetime.default(3600).describe('How long a session may be resumed, such as `90s`, `15m`, `1h`. 1m to 7d, default `1h`.'),
  priorRevisions: int(0, 1_000_000).optional().describe('How many revisions before the current one may live on; sessions of older ones are closed as `revoked` when a new one is published. 0 to 1000000, default: all.'),
});

const rule = z.strictObject({
  uid: oneOrMore(account('passwd', 'user')).optional().describe('Users, name or number; one or a list.'),
  gid: oneOrMore(account('group', 'group')).optional().describe('Groups, name or number, primary or supplementary; one or a list.'),
  unit: oneOrMore(glob).optional().describe('Units of the system\'s service manager, such as `dovecot.service`; `*` and `?` are wildcards. Needs Linux 6.5 (SO_PEERPIDFD); on older kernels no client has a unit.'),
  identities: z.array(glob).max(1000).default([]).describe('Identities that may be used; `*` and `?` are wildcards. Default: none.'),
  roles: oneOrMore(z.enum(['server', 'client']), 2).default(['server', 'client']).describe('`server`, `client` or both. Default: both.'),
  backend: z.boolean().default(false).describe('May have the pool connect to backends. Default `false`.'),
  sign: z.boolean().default(false).describe('May have certificates made on the fly, with `onTheFly`. Default `false`.'),
  operator: z.boolean().default(false).describe('May use status, sessions, identities and reload, and give the PINs of locked keys. Default `false`.'),
});

/** Compared with names in lower case. */
const nameGlob = z.string().min(1).max(255).regex(/^[\x21-\x7e]+$/, { error: 'a glob on names, such as *.example.org, without blanks and in ASCII (A-labels)' }).transform((value) => value.toLowerCase());

const onTheFly = z.strictObject({
  ca: z.strictObject({
    certificate: file.describe('PEM certificate of the signing CA, then its issuers; a root may be left out. Required.'),
    key: file.describe('PEM private key of the CA, ECDSA or RSA, not encrypted, mode 0600. Required.'),
  }).describe('The signing CA. Required.'),
  names: z.array(nameGlob).min(1).max(1000).describe('Names that may be signed: host names, addresses, and e-mail addresses of clients. `*` stands for any run of characters, dots included, `?` for one. An entry without `@` covers no e-mail address. 1 to 1000 entries. Required.'),
  lifetime: duration(3600, 604_800, 'from 1h to 7d').default(86_400).describe('How long a certificate is valid, such as `12h`; it never outlives the CA. 1h to 7d, default `1d`.'),
  cache: int(1, 100_000).default(1000).describe('Certificates that are kept for use again. 1 to 100000, default 1000.'),
  policy: z.enum(['modern', 'intermediate']).default('intermediate').describe('As for identities. Default `intermediate`.'),
  clientAuth: z.enum(['none', 'request', 'require']).default('none').describe('As for identities; the last two need `trust`. Default `none`.'),
  trust: file.optional().describe('PEM roots for the certificates of peers. Default for outgoing connections: `trust.roots`.'),
}).describe('Certificates made on demand, with a signing CA, for programs with `sign` in `access`. See [on-the-fly.md](on-the-fly.md).');

const v2 = z.strictObject({
  socket: z.strictObject({
    path: file.optional().describe('Where C programs connect (`socket_name` of their `/etc/tlspool.conf`). Default: `tlspool.sock` where the default of `socket.path` is: `/run/tlspool/tlspool.sock` for root. At most 107 octets. Change needs a restart.'),
    mode: socketMode.default(0o660).describe('As `socket.mode`. Change needs a restart.'),
    group: account('group', 'group').optional().describe('As `socket.group`. Change needs a restart.'),
  }).describe('The socket of the V2 dialect.').prefault({}),
  pidFile: file.optional().describe('File for the number of the process (`daemon_pidfile` of `/etc/tlspool.conf`), removed at the end. Default: none. Change needs a restart.'),
}).describe('The original C TLS Pool protocol V2; `v2: {}` offers it at the default place. Default: not offered. See [v2.md](v2.md).');

export const configSchema = z.strictObject({
  socket: socket.prefault({}),
  v2: v2.optional(),
  state: file.optional().describe('Folder for what the pool writes, mode 0700. Default: `/var/lib/tlspool` for root, else `$XDG_STATE_HOME/tlspool`, else `~/.local/state/tlspool`. Change needs a restart.'),
  workers: int(1, 256).optional().describe('Engine threads. 1 to 256, default: the processors that the pool may use. Change needs a restart.'),
  workerCpus: z.array(int(0, 1023)).min(1).max(256).optional().describe('Processors, by number, that the engine\'s threads are bound to: the first thread to the first one, and so on, from the start again where there are more threads. Then `workers` is their count by default. Default: the scheduler places the threads. Change needs a restart.'),
  log: log.prefault({}),
  limits: limits.prefault({}),
  drainMs: int(0, 86_400_000).default(30_000).describe('Milliseconds that sessions get to finish after SIGTERM. 0 to 86400000, default 30000. Change needs a restart.'),
  trust: trust.prefault({}),
  identities: z.array(identity).max(1000).default([]).describe('Identities, at most 1000.'),
  identitiesDirectory: file.optional().describe('Folder in which each sub-folder is one more identity, named like the folder. Sub-folders that begin with a dot are left out.'),
  onTheFly: onTheFly.optional(),
  access: z.array(rule).max(1000).optional().describe('Who may do what. A client gets what all rules that match it grant together; a rule matches when all of its `uid`, `gid` and `unit` do. Root and the pool\'s own user may always do everything. Default: the group `tlspool`, where it exists at the start, may use every identity in both roles.'),
});

export type ParsedConfig = z.output<typeof configSchema>;
export type ParsedV2 = NonNullable<ParsedConfig['v2']>;
export type ParsedIdentity = ParsedConfig['identities'][number];
export type ParsedOnTheFly = NonNullable<ParsedConfig['onTheFly']>;
export type ParsedRule = NonNullable<ParsedConfig['access']>[number];
