/** What tests of the V2 dialect share. */
export * from './pool.js';
export * from './program.js';
export * from './wire.js';
export * from './session.js';
