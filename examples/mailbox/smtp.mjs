// An SMTP server (the npm package smtp-server) that puts every mail into the inbox. It has no key and no certificate: its connections are protected already.
import { SMTPServer } from 'smtp-server';

const mostOctets = 4 * 2 ** 20;

/** Gives a function that serves one connection. */
export function smtpServer(inbox) {
  const server = new SMTPServer({
    // TLS is done, by somebody else.
    secure: true, secured: true, disabledCommands: ['STARTTLS', 'AUTH'],
    disableReverseLookup: true, size: mostOctets, logger: false, banner: 'demonstration mailbox',
    onData(stream, { envelope, clientHostname, remoteAddress, hostNameAppearsAs }, done) {
      const chunks = [];
      stream.on('data', (chunk) => { if (!stream.sizeExceeded) chunks.push(chunk); });
      stream.once('end', () => {
        if (stream.sizeExceeded) return done(Object.assign(new Error('the mail is too long'), { responseCode: 552 }));
        const from = envelope.mailFrom === false ? '' : envelope.mailFrom.address;
        const received = `Received: from ${hostNameAppearsAs ?? clientHostname} ([${remoteAddress}])\r\n\tby localhost with ESMTPS; ${new Date().toUTCString().replace('GMT', '+0000')}\r\n`;
        inbox.add(`Return-Path: <${from}>\r\n${received}${Buffer.concat(chunks).toString('latin1')}`);
        done();
      });
    },
  });
  server.on('error', () => undefined); // of one connection, which has ended
  return (socket) => { server.connect(socket); };
}
