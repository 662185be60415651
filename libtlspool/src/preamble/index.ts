/**
 * What protocols say in plain text before TLS: the dialogues, and what carries them out.
 *
 * @packageDocumentation
 */
export * from './types.js';
export { Conversation } from './driver.js';
export { farewellFor } from './farewell.js';
export { mysqlPackets } from './mysql.js';
export type { ConversationLimits } from './driver.js';
export { preambleNames, preambles } from './registry.js';
export type { PreambleName } from './registry.js';
export { dial, nameOf } from './dial.js';
export type { DialAddress, DialOptions } from './dial.js';
