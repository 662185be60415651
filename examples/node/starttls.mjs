// A protocol with STARTTLS, server side: `openssl s_client -starttls smtp -connect localhost:PORT`. Run: node starttls.mjs [port]
import net from 'node:net';
import { starttls } from 'libtlspool';

const server = net.createServer((socket) => {
  socket.on('error', () => socket.destroy());
  socket.write('220 example ESMTP\r\n');
  socket.on('data', async function onLine(line) {
    const command = line.toString().trim().toUpperCase();
    if (command.startsWith('EHLO')) socket.write('250-example\r\n250 STARTTLS\r\n');
    else if (command === 'STARTTLS') {
      // Called in the turn that handled the last plain-text octet; the library sends the go-ahead when it has stopped reading.
      // Equality above matters: a command that came together with more octets is not a STARTTLS command (injection).
      socket.off('data', onLine);
      try {
        const secure = await starttls(socket, { role: 'server', goAhead: '220 ready to start TLS\r\n' });
        secure.on('error', () => undefined);
        secure.on('data', (data) => secure.write(`250 over ${secure.getProtocol()}: ${data}`));
      } catch (error) {
        console.error(error.code, error.message);
      }
    } else socket.write('502 only EHLO and STARTTLS here\r\n');
  });
});
server.listen(Number(process.argv[2] ?? 8025), () => console.log(`listening on port ${server.address().port}`));
