/** The web application of the application rows: the same handler behind the pool and on node:https. */
const small = Buffer.from('hello, world\n');
const large = Buffer.alloc(65_536, 'a');

/** @type {import('node:http').RequestListener} */
export function handler(request, response) {
  const body = request.url === '/large' ? large : small;
  response.writeHead(200, { 'Content-Type': 'text/plain', 'Content-Length': body.length });
  response.end(body);
}

/** Long enough that no measured connection is ever ended for being idle. */
export const keepAliveTimeout = 600_000;

/** Tells the benchmark where to connect. */
export function report(port) {
  process.stdout.write(`${JSON.stringify({ port })}\n`);
}

// An end that runs exit handlers, so that --cpu-prof writes its profile.
process.once('SIGTERM', () => process.exit(0));
