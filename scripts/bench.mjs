#!/usr/bin/env node
/** `npm run bench`: tlspool beside its peers, on this machine, in one run. See bench/README.md. */
import { main } from '../bench/main.mjs';

process.exitCode = await main(process.argv.slice(2));
