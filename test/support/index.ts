/** Everything that tests share. */
export * from './app.js';
export * from './bulk.js';
export * from './cleanup.js';
export * from './pki.js';
export * from './pool.js';
export * from './pool-wire.js';
export * from './process-info.js';
export * from './program.js';
export * from './memory.js';
export * from './mini-tls13.js';
export * from './random.js';
export * from './raw-tcp.js';
export * from './serve.js';
export * from './tls-clients.js';
export * from './tls-wire.js';
export * from './wait.js';
