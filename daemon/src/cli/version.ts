import { createRequire } from 'node:module';

const { version } = createRequire(import.meta.url)('../../package.json') as { version: string };

/** Version of the package. */
export { version };
/** How the pool names itself to clients. */
export const product = `tlspool/${version}`;
