/** Configuration file to ProxyConfig: read, check, fill in. Every mistake of a file is reported in one error. */
import os from 'node:os';
import path from 'node:path';
import { isHostName, loadChecked } from 'tlspool-common/config';
import { nameOfListen, toListen } from './addresses.js';
import { proxyFormat } from './check.js';
import type { ParsedBackend, ParsedRoute, ParsedService } from './schema.js';
import type { BackendConfig, ProxyConfig, RouteConfig, ServiceConfig } from './types.js';

/** Where tlspool-proxy looks without --config. */
export const defaultConfigFile = '/etc/tlspool/proxy.yaml';

/** What defaults depend on; tests pass their own. */
export interface Surroundings { readonly cwd: string; readonly hostname: string }

const defaultPrograms = 100;

function surroundings(): Surroundings {
  const hostname = os.hostname().toLowerCase();
  return { cwd: process.cwd(), hostname: isHostName(hostname) ? hostname : 'localhost' };
}

/** proxyFormat has seen to it that exactly one of the ways is there. */
function toBackend(backend: ParsedBackend, absolute: (file: string) => string): BackendConfig {
  const { fd, relay, checkServername, connect, proxyProtocol, exec = [], user, max = defaultPrograms } = backend;
  if (fd !== undefined) return { handoff: 'fd', path: absolute(fd), relay, checkServername };
  if (connect !== undefined) return { handoff: 'connect', to: 'path' in connect ? { path: absolute(connect.path) } : connect, proxyProtocol: proxyProtocol as 0 | 1 | 2 };
  const [program = '', ...words] = exec;
  return { handoff: 'exec', command: [program, ...words], user, max };
}

function toRoute({ servername = [], alpn = [], listener = [], localid, backend }: ParsedRoute, absolute: (file: string) => string): RouteConfig {
  return { servernames: servername, alpn, listeners: listener, localid, backend: toBackend(backend, absolute) };
}

function toService(service: ParsedService, absolute: (file: string) => string, host: Surroundings): ServiceConfig {
  const { name, protocol, tls, localid, clientAuth, hostname, capabilities, proxyFrom, connections, perAddress, preambleMs, backendMs } = service;
  const routes = service.routes.map((route) => toRoute(route, absolute));
  if (service.backend !== undefined) routes.push({ servernames: [], alpn: [], listeners: [], localid: undefined, backend: toBackend(service.backend, absolute) });
  return {
    name, protocol, tls, localid, clientAuth, capabilities, proxyFrom, connections, perAddress, preambleMs, backendMs,
    listen: new Map(service.listen.map((entry) => [nameOfListen(entry), toListen(entry, absolute)])),
    hostname: hostname ?? host.hostname,
    routes: routes as [RouteConfig, ...RouteConfig[]],
  };
}

/**
 * Reads the configuration `file`: at most 1 MiB of YAML, which nobody but root and our own user may be able to write; relative paths in it are
 * relative to its folder. Looks whether programs and users of `exec` are there, and connects to nothing.
 * Throws TlsPoolError CONFIG_BAD: a ConfigError with all mistakes and their places, or a text that names file and cure.
 */
export function loadProxyConfig(file: string, host: Surroundings = surroundings()): ProxyConfig {
  const place = path.resolve(host.cwd, file);
  const absolute = (name: string): string => path.resolve(path.dirname(place), name);
  const { pool, log, connections, drainMs, services } = loadChecked(place, proxyFormat(absolute), file);
  return {
    pool: pool === undefined ? undefined : absolute(pool), log, connections, drainMs,
    services: services.map((service) => toService(service, absolute, host)),
  };
}
