// A TLS-inspecting forward proxy: it reads what its clients and their servers say to each other, and prints which hosts they talk to. Whoever trusts its CA is at its mercy:
// read docs/on-the-fly.md before you run it for anybody but yourself. Run: node proxy.mjs [port]
//
// The pool needs a signing CA, made for this purpose alone, and (unless this program runs as the pool's own user) a rule that lets it sign:
//
//   tlspool pki init /etc/tlspool/inspect-ca --name "Inspection of example.org"
//
//   onTheFly: {ca: {certificate: inspect-ca/ca.crt, key: inspect-ca/ca.key}, names: ["*"]}
//   access:   [{uid: inspector, sign: true}]
//
//   curl --proxy http://localhost:8118 --cacert /etc/tlspool/inspect-ca/ca.crt https://www.example.org/
import net from 'node:net';
import { pipeline } from 'node:stream';
import { connect, starttls } from 'libtlspool';

const maxHeadOctets = 8192;

/** Where a CONNECT request wants to go (RFC 9112 section 3.2.3); undefined for everything else. */
function parseConnect(head) {
  const [, name, v6, port] = /^CONNECT (?:([A-Za-z0-9.-]{1,253})|\[([0-9A-Fa-f:.]{2,45})\]):(\d{1,5}) HTTP\/1\.[01]\r\n/.exec(head) ?? [];
  const host = (name ?? v6)?.toLowerCase();
  const isGood = host !== undefined && (v6 === undefined || net.isIPv6(v6)) && Number(port) >= 1 && Number(port) <= 65_535;
  return isGood ? { host, port: Number(port) } : undefined;
}

/** The head of the request, and nothing else: what comes behind it, before our answer, was not protected. */
function readHead(client) {
  return new Promise((resolve, reject) => {
    let head = '';
    const onData = (octets) => {
      head += octets.toString('latin1');
      const end = head.indexOf('\r\n\r\n');
      if (end < 0 && head.length <= maxHeadOctets) return;
      client.off('data', onData).pause();
      if (end === head.length - 4) resolve(head);
      else reject(new Error('the request is too long, or something came behind it'));
    };
    client.on('data', onData);
    client.once('close', () => reject(new Error('closed before the request was whole')));
  });
}

/** Both ways, half-closes included. pipeline() destroys with the error: what is cut off on one side is cut off on the other, and never looks complete. */
function join(one, other) {
  for (const [from, to] of [[one, other], [other, one]]) pipeline(from, to, () => undefined);
}

const answer = (status) => `HTTP/1.1 ${status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`;

async function inspect(client) {
  const target = parseConnect(await readHead(client));
  if (target === undefined) return client.end(answer('400 Only CONNECT here'));
  const { host, port } = target;
  let server;
  try {
    // First the server, whose certificate the pool verifies: nobody gets a certificate of ours for a server that has none of its own.
    server = await connect({ host, port, allowHalfOpen: true });
  } catch (error) {
    console.log(`${host}  ${error.code ?? 'failed'}`);
    return client.end(answer('502 The server was not reached, or not trusted'));
  }
  try {
    const inside = await starttls(client, {
      role: 'server', onTheFly: true, allowHalfOpen: true, goAhead: 'HTTP/1.1 200 Connection established\r\n\r\n',
      // Clients of addresses send no server name; others must mean the server that we are connected to.
      localid: host, onServername: ({ servername }) => servername === undefined || servername.toLowerCase() === host,
    });
    console.log(`${host}  ${inside.getProtocol()} inside, ${server.getProtocol()} outside`);
    join(inside, server);
  } catch (error) {
    server.destroy();
    throw error;
  }
}

const proxy = net.createServer({ allowHalfOpen: true }, (client) => {
  client.on('error', () => client.destroy());
  inspect(client).catch((error) => {
    console.log(`${client.remoteAddress ?? 'a client'}  ${error.code ?? error.message}`);
    client.destroy();
  });
});
proxy.listen(Number(process.argv[2] ?? 8118), '127.0.0.1', () => console.log(`listening on port ${proxy.address().port}`));
