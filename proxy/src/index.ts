/**
 * `tlspool-proxy` is a program; see proxy/README.md. What it is made of is not for other programs: they use libtlspool, whose
 * `starttls()` takes the same preambles.
 *
 * @packageDocumentation
 */
export { version } from './version.js';
