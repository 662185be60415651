/**
 * The pool protocol: the message table, its vocabulary, the errors, and the codec. docs/protocol.md is the specification.
 *
 * @packageDocumentation
 */
export * from './schema.js';
export * from './messages.js';
export * from './errors.js';
export * from './table.js';
export * from './codec.js';
export { escapeText, fitText } from './escape.js';
export { formatMessage, wireTracer } from './trace.js';
export type { WireTracer } from './trace.js';
export { maxDepth, maxKeyOctets, maxMapFields } from './wire.js';
