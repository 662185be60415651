/**
 * The keys of the configuration file. The types, the checks and the table of docs/proxy-configuration.md all come from here:
 * `describe` is the key's documentation, and a test keeps the table and the schema together.
 */
import { preambleNames, preambles } from 'libtlspool/preamble';
import type { PreambleName } from 'libtlspool/preamble';
import { file, hostName, int, localid, nearest, oneOrMore, parsedBy, runAs, socketMode } from 'tlspool-common/config';
import { z } from 'zod';
import { listenAllowed, parseListen, parsePlain, plainAllowed } from './addresses.js';

/** Protocols with a server role; the others are ways out for clients. */
export const servedProtocols: readonly PreambleName[] = preambleNames.filter((name) => preambles[name].server !== undefined);

function protocolAllowed(value: unknown): string {
  const all = servedProtocols.join(', ');
  if (preambleNames.some((name) => name === value)) return `a protocol of servers: only clients speak it, on their way out; one of ${all}`;
  const guess = typeof value === 'string' ? nearest(value, servedProtocols) : undefined;
  return `one of ${all}${guess === undefined ? '' : `; did you mean ${JSON.stringify(guess)}?`}`;
}

const text = (max: number) => z.string().min(1).max(max).regex(/^[^\p{Cc}]*$/u, { error: 'text without control characters' });
/** How services and listeners are called in routes, logs and metrics. */
const label = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$/, { error: 'a name of 1 to 64 letters, digits, dots, colons, hyphens and underscores that begins with a letter or digit' });
/** Numbers are ports. */
const asText = (value: unknown): string => (typeof value === 'string' ? value : typeof value === 'number' ? String(value) : '');

const listen = z.preprocess((value) => (typeof value === 'object' && value !== null ? value : { address: value }), z.strictObject({
  address: parsedBy((value) => {
    const address = parseListen(asText(value));
    return address === undefined ? undefined : { written: asText(value), address };
  }, listenAllowed).describe('`127.0.0.1:143`, `[::1]:143`, `143` for all addresses of IPv4 and IPv6, `unix:/path`, or `systemd:NAME` for a socket passed by systemd under that FileDescriptorName=. Addresses are numeric. Port 0 lets the kernel choose, and the log says what it chose. Required.'),
  name: label.optional().describe('How routes and the log call it. Default: the address as it is written.'),
  mode: socketMode.optional().describe('Permissions of a UNIX socket, octal, `0600` to `0777`. Default `0660`.'),
}));

// Which of them go together is said in check.ts, where there is room for the reason.
const backend = z.strictObject({
  fd: file.optional().describe('The backend takes descriptors: path of the UNIX SOCK_SEQPACKET socket on which it listens, at most 107 octets. Exactly one of `fd`, `connect` and `exec`.'),
  relay: z.boolean().default(false).describe('Only with `fd`: the backend sends its requests about sessions to the proxy, which passes them on. Without it the backend asks the pool itself, for which it needs access to the pool\'s socket. Default `false`.'),
  checkServername: z.boolean().default(false).describe('Only with `fd`: the backend is asked whether a server name may be served. Default `false`.'),
  connect: parsedBy((value) => (typeof value === 'string' ? parsePlain(value) : undefined), plainAllowed).optional().describe('A plain-text service: `127.0.0.1:143`, `[::1]:143`, `name:143` or `unix:/path`. Not for `mysql`.'),
  proxyProtocol: int(0, 2).default(0).describe('Only with `connect`: version of the PROXY protocol header that the backend gets, `1` or `2`; `0` for none. Default `0`.'),
  exec: z.array(text(4096)).min(1).max(256).optional().describe('A program per connection: its absolute path, and its arguments. Not for `mysql`.'),
  user: runAs.optional().describe('Only with `exec`: user that the program runs as, by name or number. Default: the proxy\'s own; another one takes CAP_SETUID and CAP_SETGID.'),
  max: int(1, 10_000).optional().describe('Only with `exec`: programs at a time. 1 to 10000, default 100.'),
});

const route = z.strictObject({
  servername: oneOrMore(hostName, 1000).optional().describe('Server names (SNI), one or a list; `*.example.org` covers one label. Default: any name, and none.'),
  alpn: oneOrMore(z.string().min(1).refine((value) => Buffer.byteLength(value) <= 255, { error: 'a protocol name of at most 255 octets' }), 32).optional()
    .describe('Application protocols (ALPN), one or a list of at most 32, the most preferred first. Default: any, and none.'),
  listener: oneOrMore(z.preprocess((value) => (typeof value === 'number' ? String(value) : value), z.string().min(1))).optional().describe('Names of listening addresses of this service, one or a list. Default: any.'),
  localid: localid.optional().describe('Identity to serve. Default: that of the service.'),
  backend: backend.describe('Where these connections go. Required.'),
});

const service = z.strictObject({
  name: label.describe('Name of the service in the log, unique. Required.'),
  protocol: parsedBy((value) => servedProtocols.find((name) => name === value), protocolAllowed).describe(`${servedProtocols.map((name) => `\`${name}\``).join(', ')}. Required.`),
  listen: oneOrMore(listen).describe('Where clients connect: one address or a list, each as text, or as a map of the keys below. Required.'),
  tls: z.enum(['required', 'optional']).default('required').describe('`required`, or `optional`: a client that does not ask for TLS is passed on in plain text. Default `required`.'),
  localid: localid.optional().describe('Identity of the pool to serve. Default: the pool chooses by server name.'),
  clientAuth: z.enum(['request', 'require']).optional().describe('Client certificates: `request` or `require`, where the identity\'s policy asks for less. Default: what the policy says.'),
  hostname: hostName.refine((value) => !value.startsWith('*.'), { error: 'one host name' }).optional().describe('Our name in greetings. Default: the host\'s.'),
  capabilities: z.array(text(255)).max(100).optional().describe('What is shown before TLS instead of what a plain-text backend says, in the protocol\'s own spelling, such as `SIZE 10240000`. At most 100. What is about TLS and authentication is up to us. Default: what the backend says, where there is one to be asked.'),
  proxyFrom: z.array(z.string()).max(1000).default([]).describe('Load balancers: addresses and networks such as `10.0.0.0/8`, and `unix` for UNIX sockets. Connections from there must begin with a PROXY protocol header, version 1 or 2, which is believed; from elsewhere none is read. Default: none.'),
  connections: int(1, 1_000_000).default(10_000).describe('Connections at a time: those that are not handed over yet, and those that the proxy follows to their end (`connect`, `exec`, and `fd` with `relay`). 1 to 1000000, default 10000.'),
  perAddress: int(1, 1_000_000).default(100).describe('The same for one client: an IPv4 address, or the /64 network of an IPv6 address. 1 to 1000000, default 100.'),
  preambleMs: int(100, 3_600_000).default(60_000).describe('Milliseconds from accepting a connection to the go-ahead for TLS. 100 to 3600000, default 60000.'),
  backendMs: int(100, 600_000).default(10_000).describe('Milliseconds in which a backend must take a connection. 100 to 600000, default 10000.'),
  backend: backend.optional().describe('Where connections go that no route takes: the default route. Required, unless there are `routes`.'),
  routes: z.array(route).max(1000).default([]).describe('Where else connections go: all conditions of a route must hold, and the first route that matches is taken. Without a default route a client that none matches gets a TLS alert. At most 1000.'),
});

const log = z.strictObject({
  level: z.enum(['debug', 'info', 'warn', 'error']).default('info').describe('`debug`, `info`, `warn` or `error`. The lines of connections are `info`. Default `info`. Change needs a restart.'),
  format: z.enum(['json', 'text']).default('json').describe('`json`, one object a line, or `text`, with fields as name=value. Default `json`. Change needs a restart.'),
}).describe('The log, on standard output.');

export const configSchema = z.strictObject({
  pool: file.optional().describe('Socket of the pool, at most 107 octets. Default: `$TLSPOOL_SOCKET`, else `/run/tlspool/pool.sock`, else `$XDG_RUNTIME_DIR/tlspool/pool.sock`. Change needs a restart.'),
  log: log.prefault({}),
  connections: int(1, 1_000_000).default(10_000).describe('Connections at a time of all services together. 1 to 1000000, default 10000.'),
  drainMs: int(0, 86_400_000).default(30_000).describe('Milliseconds that connections which are not handed over get to finish after SIGTERM. 0 to 86400000, default 30000.'),
  services: z.array(service).min(1).max(1000).describe('Services, one to 1000: one protocol on one or more addresses. Required.'),
});

export type ParsedConfig = z.output<typeof configSchema>;
export type ParsedService = ParsedConfig['services'][number];
export type ParsedListen = ParsedService['listen'][number];
export type ParsedRoute = ParsedService['routes'][number];
export type ParsedBackend = ParsedRoute['backend'];
