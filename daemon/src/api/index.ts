export { Connection } from './connection.js';
export type { ConnectionHooks, ConnectionLimits } from './connection.js';
export { asPoolError, clipText } from './faults.js';
export { FdBag } from './fdbag.js';
export { Front } from './front.js';
export type { FrontLimits, FrontParts } from './parts.js';
export { Acceptor, openPoolSocket } from './poolsocket.js';
