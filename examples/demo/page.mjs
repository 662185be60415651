// The one page of the demonstration: HTML for browsers, text for everybody else.
import { facts, printable } from './line.mjs';

const promise = 'This process holds no key, no certificate and no TLS library. The pool did the handshake.';

const escaped = (text) => printable(String(text)).replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`);

const html = (rows) => `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>tlspool</title>
<style>
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 42rem; margin: 3rem auto; padding: 0 1rem; color-scheme: light dark; }
  th { text-align: left; padding-right: 2rem; font-weight: 600; } td { font-family: ui-monospace, monospace; }
</style>
<h1>It works</h1>
<p>${promise}</p>
<table>
${rows.map(([name, value]) => `<tr><th scope="row">${name}</th><td>${escaped(value)}</td></tr>`).join('\n')}
</table>
</html>
`;

const text = (rows) => `${promise}\n\n${rows.map(([name, value]) => `${name.padEnd(12)} ${printable(String(value))}`).join('\n')}\n`;

/** Answers a request of node:http. */
export function answer(request, response) {
  if (request.url !== '/') {
    response.writeHead(404, { 'content-type': 'text/plain; charset=utf-8' }).end('There is only / here.\n');
    return;
  }
  const rows = facts(request.socket);
  const wantsHtml = /\btext\/html\b/.test(request.headers.accept ?? '');
  response.writeHead(200, {
    'content-type': `text/${wantsHtml ? 'html' : 'plain'}; charset=utf-8`, 'cache-control': 'no-store', 'x-content-type-options': 'nosniff',
    'content-security-policy': "default-src 'none'; style-src 'unsafe-inline'",
  }).end(wantsHtml ? html(rows) : text(rows));
}
