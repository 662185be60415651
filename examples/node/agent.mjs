// Outgoing HTTPS whose server certificate the pool verifies. Run: node agent.mjs https://localhost:8443/ [localid]
import https from 'node:https';
import { Agent } from 'libtlspool';

const [url, localid] = process.argv.slice(2);
const agent = new Agent({ keepAlive: true, ...(localid === undefined ? {} : { localid }) });
https.get(url, { agent }, (response) => {
  console.log(response.statusCode, response.socket.getCipher().standardName);
  response.pipe(process.stdout);
  response.on('end', () => agent.destroy());
}).on('error', (error) => {
  console.error(error.code, error.message);
  process.exitCode = 1;
});
