// What the demonstration prints of a connection.

/** Text that a peer chose, without anything that a terminal would obey. */
export const printable = (text) => JSON.stringify(text).slice(1, -1).replace(/[^\x20-\x7e]/g, '?');

const group = (info) => info.group ?? '-';

/** What all lines begin with: time, peer, service. */
export const lineStart = (peer, service, now = new Date()) => [now.toTimeString().slice(0, 8), printable(peer).padEnd(21), service.padEnd(5)].join('  ');

/** One line: time, peer, service, what was negotiated, plain-text octets in and out, and how it ended. */
export function connectionLine(socket, service, ended) {
  const { sessionInfo: info } = socket;
  const remote = info.remote === undefined || info.remote.family === 'unix' ? 'unix' : `${info.remote.address}:${info.remote.port}`;
  return [
    lineStart(remote, service), info.protocol, info.cipher, group(info),
    `sni=${printable(info.servername ?? '-')}`, `alpn=${printable(info.alpn ?? '-')}`, ...(info.resumed ? ['resumed'] : []),
    `in=${socket.bytesRead}`, `out=${socket.bytesWritten}`, ended,
  ].join('  ');
}

/** What the page says, as pairs of name and value. */
export function facts(socket) {
  const { sessionInfo: info } = socket;
  return [
    ['protocol', info.protocol], ['cipher', info.cipher], ['group', group(info)], ['ALPN', info.alpn ?? 'none'],
    ['server name', info.servername ?? 'none'], ['resumed', info.resumed ? 'yes' : 'no'],
    ['identity', `${info.localid ?? '-'}, revision ${info.revision ?? '-'}`],
    ['you', `${socket.remoteAddress} port ${socket.remotePort}`], ['application', `process ${process.pid}`],
  ];
}
