// Fetches pages over one connection of TLS 1.2, with a certificate for when the server asks: Node's client answers a renegotiation, but does not offer
// post-handshake authentication, which TLS 1.3 has instead. Run: node client.mjs URL ca.crt [client.crt client.key]
import { readFileSync } from 'node:fs';
import https from 'node:https';

const [url, caFile, certFile, keyFile] = process.argv.slice(2);
const agent = new https.Agent({
  keepAlive: true, maxSockets: 1, maxVersion: 'TLSv1.2', ca: readFileSync(caFile),
  ...(certFile === undefined ? {} : { cert: readFileSync(certFile), key: readFileSync(keyFile) }),
});
const get = (address) => new Promise((resolve, reject) => {
  https.get(address, { agent }, (response) => {
    response.setEncoding('utf8');
    let text = '';
    response.on('data', (chunk) => { text += chunk; });
    response.on('end', () => resolve(`${address.pathname}: ${response.statusCode} ${text}`));
  }).on('error', reject);
});
for (const address of [new URL('/', url), new URL(url)]) process.stdout.write(await get(address));
agent.destroy();
