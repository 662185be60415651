/** What is wrong with the routes of a service as a whole. */
import { nearest, show, type FieldPath } from 'tlspool-common/config';
import { matchesName } from '../routing.js';
import { nameOfListen } from './addresses.js';
import type { ParsedRoute, ParsedService } from './schema.js';

type Report = (path: FieldPath, text: string) => void;
type Conditions = Pick<ParsedRoute, 'servername' | 'alpn' | 'listener'>;

const isUnconditional = ({ servername, alpn, listener }: Conditions): boolean => (servername ?? alpn ?? listener) === undefined;

/** Does the first take every connection that the second would? Not seen: several routes that only together do. */
function covers(first: Conditions, second: Conditions): boolean {
  const hasAll = (all: readonly string[] | undefined, some: readonly string[] | undefined): boolean => all === undefined || (some?.every((one) => all.includes(one)) ?? false);
  const names = first.servername;
  return hasAll(first.alpn, second.alpn) && hasAll(first.listener, second.listener) &&
    (names === undefined || (second.servername?.every((name) => matchesName(names, name)) ?? false));
}

function checkReach({ routes, backend }: ParsedService, at: FieldPath, report: Report): void {
  for (const [index, route] of routes.entries()) {
    const before = routes.findIndex((earlier, place) => place < index && covers(earlier, route));
    if (before >= 0) report([...at, 'routes', index], `can never match: routes[${before}] takes all of its connections; put it before that one, or remove it`);
  }
  const last = routes.findIndex(isUnconditional);
  if (last >= 0 && backend !== undefined) report([...at, 'backend'], `can never be reached: routes[${last}] has no conditions and takes every connection; give it conditions, or remove one of the two`);
}

/** A client without TLS has neither server name nor ALPN: what it gets is the last route of its listener. */
function checkPlain({ routes, backend, listen }: ParsedService, at: FieldPath, report: Report): void {
  if (backend !== undefined) return;
  const without = listen.map(nameOfListen).filter((name) => {
    const last = routes.filter(({ listener }) => listener?.includes(name) ?? true).at(-1);
    return last === undefined || (last.servername ?? last.alpn) !== undefined;
  });
  if (without.length > 0) report([...at, 'tls'], `"optional" needs a backend for clients without TLS, which have no server name and no ALPN; add \`backend\` to the service (listener ${without.join(', ')})`);
}

export function checkRoutes(service: ParsedService, at: FieldPath, report: Report): void {
  const { routes, backend, listen, tls } = service;
  if (backend === undefined && routes.length === 0) report(at, 'says nowhere where connections go; add `backend`, or `routes`');
  const listeners = listen.map(nameOfListen);
  for (const [index, route] of routes.entries()) {
    for (const [place, name] of (route.listener ?? []).entries()) {
      if (listeners.includes(name)) continue;
      const guess = nearest(name, listeners);
      report([...at, 'routes', index, 'listener', place], `${show(name)} is no listener of this service; ${guess === undefined ? `there are ${listeners.join(', ')}` : `did you mean ${JSON.stringify(guess)}?`}`);
    }
  }
  checkReach(service, at, report);
  if (tls === 'optional') checkPlain(service, at, report);
}
