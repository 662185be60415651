// A web server that asks for a client certificate only when /admin is requested. Run: node server.mjs [port]
//
// The pool needs an identity that can check client certificates: one with ca.crt, whose policy may be `intermediate` where clients of TLS 1.2 are
// to be asked too. With an identity of its own for that (a folder with nothing but ca.crt, and rules under `peers`), add localid to reauthenticate().
// docs/reauthentication.md has it all. With ca.crt, client.crt and client.key of that CA (tlspool pki makes them):
//
//   TLS 1.2, a renegotiation:         node client.mjs https://localhost:8443/admin ca.crt client.crt client.key
//   TLS 1.3, post-handshake:          openssl s_client -quiet -enable_pha -connect localhost:8443 -servername localhost -CAfile ca.crt -cert client.crt -key client.key
//                                     and then: GET /admin HTTP/1.1, Host: localhost, and an empty line
//   either of them, by what is asked: curl --cacert ca.crt --cert client.crt --key client.key [--tls-max 1.2] https://localhost:8443/admin
//                                     wget -qO- --ca-certificate=ca.crt --certificate=client.crt --private-key=client.key https://localhost:8443/admin
import http from 'node:http';
import { attach } from 'libtlspool';

/** How long the client may take: a person may have to choose a certificate, or find the card that it is on. */
const timeoutMs = 60_000;
/** Connections whose client is being asked: requests that are pipelined wait for the same answer. */
const asked = new WeakMap();

/** The name in a certificate that was verified, or undefined. Nobody is asked twice who has shown one. */
async function nameOf(socket) {
  if (!socket.authorized) {
    if (!asked.has(socket)) asked.set(socket, socket.reauthenticate({ timeoutMs }).finally(() => asked.delete(socket)));
    await asked.get(socket);
  }
  return socket.authorized ? socket.getPeerCertificate().subject.CN : undefined;
}

/** [status, text] of a page. */
async function page({ url, socket }) {
  const [path] = url.split('?', 1);
  if (path !== '/admin' && !path.startsWith('/admin/')) return [200, 'for everybody; /admin is for those with a certificate'];
  try {
    const name = await nameOf(socket);
    if (name !== undefined) return [200, `hello ${name}`];
    return [403, `this page is for those with a certificate${socket.authorizationError === null ? '' : `, and yours was not accepted (${socket.authorizationError})`}`];
  } catch (error) {
    // REAUTH_UNAVAILABLE: this client cannot be asked. TIMEOUT: it has not answered. With anything else the connection is over, and nobody reads this.
    return [403, `no certificate is to be had: ${error.message}`];
  }
}

const server = http.createServer(async (request, response) => {
  // The client's answer comes behind what it has sent already: a body that nobody reads would keep it back.
  request.resume();
  // Nothing of the answer is sent before the outcome is there. On an HTTP/1.1 connection later answers wait for this one by themselves.
  const [status, text] = await page(request);
  response.writeHead(status, { 'content-type': 'text/plain; charset=utf-8' }).end(`${text}\n`);
});
// A node:http server speaks http/1.1 only, and so ALPN offers nothing else: HTTP/2 forbids asking (RFC 9113 section 9.2.1, RFC 8740).
await attach(server, { port: Number(process.argv[2] ?? 8443) });
console.log(`listening on port ${server.address().port}`);
