/** The configuration as a format: the schema, and the keys that depend on each other. */
import { preambles } from 'libtlspool/preamble';
import { TlsPoolError } from 'libtlspool/protocol';
import { show, socketPathReason, type ConfigFormat, type FieldPath } from 'tlspool-common/config';
import { checkProgram } from '../handoff/exec.js';
import { addressList } from '../proxyprotocol/index.js';
import { clash, nameOfListen, toListen } from './addresses.js';
import { checkRoutes } from './routes.js';
import { configSchema, type ParsedBackend, type ParsedConfig, type ParsedService } from './schema.js';
import type { ListenAddress } from './types.js';

type Report = (path: FieldPath, text: string) => void;

/** One pass over a parsed file. */
class Check {
  readonly #report: Report;
  readonly #absolute: (file: string) => string;
  readonly #listening: { readonly address: ListenAddress; readonly where: string }[] = [];
  readonly #names = new Map<string, number>();

  constructor(report: Report, absolute: (file: string) => string) {
    this.#report = report;
    this.#absolute = absolute;
  }

  run({ pool, services }: ParsedConfig): void {
    if (pool !== undefined) this.#socketPath(pool, ['pool']);
    for (const [index, service] of services.entries()) {
      const at = ['services', index];
      const first = this.#names.get(service.name);
      if (first === undefined) this.#names.set(service.name, index);
      else this.#report([...at, 'name'], `${show(service.name)} is the name of services[${first}] already; each needs its own`);
      this.#service(service, at);
    }
  }

  #service(service: ParsedService, at: FieldPath): void {
    this.#listen(service, at);
    for (const [index, entry] of service.proxyFrom.entries()) this.#attempt([...at, 'proxyFrom', index], () => addressList([entry]));
    if (service.backend !== undefined) this.#backend(service.backend, service, [...at, 'backend']);
    for (const [index, { backend }] of service.routes.entries()) this.#backend(backend, service, [...at, 'routes', index, 'backend']);
    checkRoutes(service, at, this.#report);
    if (service.tls !== 'optional') return;
    if (service.protocol === 'none') this.#report([...at, 'tls'], '"optional" does not go with the protocol none: TLS begins with the first octet, and there is nothing before it in which a client could do without');
    if (service.clientAuth === 'require') this.#report([...at, 'tls'], '"optional" does not go with clientAuth require: a client without a certificate would simply not ask for TLS; make it required');
  }

  #listen(service: ParsedService, at: FieldPath): void {
    const names = new Map<string, number>();
    for (const [index, entry] of service.listen.entries()) {
      const here = [...at, 'listen', index];
      const name = nameOfListen(entry);
      const before = names.get(name);
      if (before !== undefined) this.#report(here, `${show(name)} is the name of listen[${before}] already; give one of them another name`);
      else names.set(name, index);
      const address = toListen(entry, this.#absolute);
      if (address.kind === 'unix') this.#socketPath(address.path, here);
      else if (entry.mode !== undefined) this.#report([...here, 'mode'], 'goes with a UNIX socket only (unix:/path)');
      const taken = this.#listening.find((other) => clash(other.address, address));
      if (taken !== undefined) this.#report(here, `${show(entry.address.written)} is taken by ${taken.where}: both cannot listen at the same time; change or remove one of them`);
      else this.#listening.push({ address, where: `${at.length === 2 ? `services[${at[1]}]` : ''}.listen[${index}] (${entry.address.written})` });
    }
  }

  #backend(backend: ParsedBackend, { protocol }: ParsedService, at: FieldPath): void {
    const ways = (['fd', 'connect', 'exec'] as const).filter((way) => backend[way] !== undefined);
    const [way] = ways;
    if (way === undefined) return this.#report(at, 'says nowhere where connections go; add one of fd, connect and exec');
    if (ways.length > 1) return this.#report(at, `has ${ways.join(' and ')}; keep one of them`);
    if (way !== 'fd' && preambles[protocol].server?.plainBackend === false) {
      this.#report([...at, way], `does not go with ${protocol}: what was said before TLS must be known to go on (the client's proof of its password is made from the greeting that it had from us), and a plain-text service cannot be told; use fd, with a backend that takes descriptors`);
    }
    if (way !== 'fd' && backend.relay) this.#report([...at, 'relay'], 'goes with fd: only a backend that takes descriptors has a way to ask');
    if (way !== 'fd' && backend.checkServername) this.#report([...at, 'checkServername'], 'goes with fd: only a backend that takes descriptors can be asked');
    if (way !== 'connect' && backend.proxyProtocol !== 0) this.#report([...at, 'proxyProtocol'], `goes with connect; by ${way} the backend learns the client's address anyway`);
    if (way !== 'exec' && backend.user !== undefined) this.#report([...at, 'user'], 'goes with exec');
    if (way !== 'exec' && backend.max !== undefined) this.#report([...at, 'max'], 'goes with exec; for the others there is `connections` of the service');
    if (backend.fd !== undefined) this.#socketPath(backend.fd, [...at, 'fd']);
    if (backend.connect !== undefined && 'path' in backend.connect) this.#socketPath(backend.connect.path, [...at, 'connect']);
    if (backend.exec !== undefined) this.#attempt([...at, 'exec', 0], () => checkProgram(backend.exec?.[0] ?? ''));
  }

  #socketPath(file: string, at: FieldPath): void {
    const reason = socketPathReason(this.#absolute(file));
    if (reason !== undefined) this.#report(at, reason);
  }

  /** For checks that throw. */
  #attempt(at: FieldPath, check: () => unknown): void {
    try {
      check();
    } catch (error) {
      if (!(error instanceof TlsPoolError)) throw error;
      // The place is said before it.
      this.#report(at, error.field === undefined ? error.message : error.message.replace(`${error.field}: `, ''));
    }
  }
}

/** `absolute` makes paths of the file absolute. */
export function proxyFormat(absolute: (file: string) => string): ConfigFormat<ParsedConfig> {
  return {
    schema: configSchema, spelled: new Set(['mode']),
    check: (config, report) => { new Check(report, absolute).run(config); },
  };
}
