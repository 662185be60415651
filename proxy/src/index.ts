/**
 * `tlspool-proxy`: nothing yet. STARTTLS preambles and the relay in front of the pool belong here; until they
 * exist this package exports its version and nothing else, so that nobody builds on what is not there.
 *
 * @packageDocumentation
 */

/** Version of this package, as in its package.json. */
export const version = '0.1.0';
