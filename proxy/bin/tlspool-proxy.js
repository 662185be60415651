#!/usr/bin/env node
import { main } from '../dist/main.js';

// Not exitCode: sessions whose end is still watched belong to the pool, and do not need this process.
process.exit(await main(process.argv));
