/** Which backend a ClientHello leads to. */
import assert from 'node:assert/strict';
import type { RouteConfig } from 'tlspool-proxy/dist/config/types.js';
import { Router, matchesName } from 'tlspool-proxy/dist/routing.js';

const route = (path: string, conditions: Partial<RouteConfig> = {}): RouteConfig => ({
  servernames: [], alpn: [], listeners: [], localid: undefined, ...conditions, backend: { handoff: 'fd', path, relay: false, checkServername: false },
});
const router = (...routes: [RouteConfig, ...RouteConfig[]]): Router => new Router({ routes }, 'main');
const nameOf = (found: RouteConfig | undefined): string | undefined => (found?.backend.handoff === 'fd' ? found.backend.path : undefined);

describe('proxy: routing', () => {
  it('a wildcard stands for exactly one label', () => {
    assert(matchesName(['*.example.org'], 'a.example.org'));
    assert(!matchesName(['*.example.org'], 'example.org'));
    assert(!matchesName(['*.example.org'], 'a.b.example.org'));
    assert(!matchesName(['*.example.org'], '.example.org'));
  });

  it('names are compared without regard to case, and no name matches no pattern', () => {
    assert(matchesName(['mail.example.org'], 'MAIL.Example.org'));
    assert(!matchesName(['mail.example.org'], undefined));
    assert(matchesName([], undefined));
  });

  it('the first route whose conditions all hold is taken', () => {
    const routes = router(route('/h2', { servernames: ['a.test'], alpn: ['h2'] }), route('/a', { servernames: ['a.test'] }), route('/rest'));
    assert.equal(nameOf(routes.choose({ servername: 'a.test', alpn: ['http/1.1', 'h2'] }).route), '/h2');
    assert.equal(nameOf(routes.choose({ servername: 'a.test', alpn: ['http/1.1'] }).route), '/a');
    assert.equal(nameOf(routes.choose({ servername: 'b.test', alpn: ['h2'] }).route), '/rest');
    assert.equal(nameOf(routes.choose({ alpn: [] }).route), '/rest');
  });

  it('a name without a route is refused', () => {
    assert.deepEqual(router(route('/a', { servernames: ['a.test'] })).choose({ servername: 'b.test', alpn: [] }), { route: undefined, verdict: false });
  });

  it('a name with routes for other application protocols gets their list, so that the pool finds none in common', () => {
    const routes = router(route('/a', { servernames: ['a.test'], alpn: ['imap'] }), route('/b', { servernames: ['a.test'], alpn: ['smtp', 'imap'] }));
    assert.deepEqual(routes.choose({ servername: 'a.test', alpn: ['h2'] }), { route: undefined, verdict: { alpn: ['imap', 'smtp'] } });
  });

  it('a client that offers no application protocol, where each route demands one, is refused by name: nothing else would stop its handshake', () => {
    const routes = router(route('/a', { servernames: ['a.test'], alpn: ['imap'] }));
    assert.deepEqual(routes.choose({ servername: 'a.test', alpn: [] }), { route: undefined, verdict: false });
    assert.equal(nameOf(routes.choose({ servername: 'a.test', alpn: ['imap'] }).route), '/a');
  });

  it('the pool is told the identity and the application protocols of the route', () => {
    const { verdict } = router(route('/a', { servernames: ['a.test'], alpn: ['imap'], localid: 'one' })).choose({ servername: 'a.test', alpn: ['imap'] });
    assert.deepEqual(verdict, { localid: 'one', alpn: ['imap'] });
  });

  it("the protocol's own application protocol is offered where the route names none", () => {
    const routes = new Router({ routes: [route('/db')] }, 'main', 'postgresql');
    assert.deepEqual(routes.verdictOf(routes.only as RouteConfig), { alpn: ['postgresql'] });
  });

  it('a route for another listener does not count', () => {
    const routes = router(route('/other', { listeners: ['other'] }), route('/main', { listeners: ['main'] }));
    assert.equal(nameOf(routes.only), '/main');
    assert.equal(nameOf(routes.fallback), '/main');
  });

  it('there is nothing to ask only where the first route has no conditions', () => {
    assert.equal(router(route('/a', { servernames: ['a.test'] }), route('/b')).only, undefined);
    assert.equal(nameOf(router(route('/a')).only), '/a');
  });
});
