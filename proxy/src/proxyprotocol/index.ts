/**
 * The PROXY protocol, versions 1 and 2, both ways: pure functions, no input or output of their own.
 *
 * @packageDocumentation
 */
export * from './types.js';
export { encodeV1, encodeV2 } from './encode.js';
export { parse } from './parse.js';
export { tlsFactsOf } from './facts.js';
export { addressList } from './list.js';
export type { AddressList } from './list.js';
export { readProxyHeader } from './dialogue.js';
export { crc32c } from './crc32c.js';
