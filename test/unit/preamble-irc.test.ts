/** IRC before TLS. Bad input of all kinds is in contract/preambles.test.ts. */
import assert from 'node:assert/strict';
import { preambles } from 'libtlspool/preamble';
import { face, plays, playFails, required, serveOptions } from '../support/dialogue.js';

const { irc } = preambles;
assert(irc.server !== undefined && irc.client !== undefined);
const { serve, farewell } = irc.server;
const from = ':mail.example.org';

describe('preamble irc', () => {
  it('RPL_STARTTLS is the go-ahead, ERR_STARTTLS the refusal; case and spaces around the command do not matter', () => {
    for (const command of ['STARTTLS\r\n', 'starttls \n', ' StartTLS\r\n']) {
      const { result } = plays(serve(required), command);
      assert(result.next === 'tls');
      assert.equal(Buffer.from(result.goAhead).toString(), `${from} 670 * :STARTTLS successful, proceed with TLS handshake\r\n`);
      assert.equal(Buffer.from(result.refusal).toString(), `${from} 691 * :STARTTLS failed: TLS is not available now\r\n`);
    }
  });

  it('capabilities: tls and nothing else, whatever the backend has; the negotiation does not begin registration', () => {
    const { output } = plays(serve(serveOptions('required', { capabilities: ['sasl', 'sts=port=6697', 'server-time'] })), 'CAP LS 302\r\nCAP REQ :tls\r\nCAP REQ :sasl server-time\r\ncap list\r\nCAP END\r\nCAP NONSENSE\r\nSTARTTLS\r\n');
    assert.equal(output, `${from} CAP * LS :tls\r\n${from} CAP * ACK :tls\r\n${from} CAP * NAK :sasl server-time\r\n${from} CAP * LIST :\r\n${from} 410 * :Invalid CAP command\r\n`);
  });

  it('PING and QUIT are answered', () => {
    assert.deepEqual(plays(serve(required), 'PING :a b\r\nQUIT\r\n'), { result: { next: 'end' }, output: `${from} PONG mail.example.org :a b\r\nERROR :Closing Link: (Quit)\r\n` });
  });

  it('nickname and password of before TLS are not passed on', () => {
    const { result } = plays(serve(required), 'PASS secret\r\nNICK joe\r\nUSER joe 0 * :Joe\r\nSTARTTLS\r\n');
    assert(result.next === 'tls');
    assert.equal(result.state, undefined);
  });

  it('a farewell is an ERROR message', () => {
    assert.equal(Buffer.from(farewell('unavailable', face)).toString(), 'ERROR :Closing Link: The service is not available now, try again later\r\n');
  });

  it('a client asks a server that has no capabilities all the same, and ends the negotiation with one that has', () => {
    const said = (...lines: string[]): string => plays(irc.client!({ hostname: 'c', remoteid: 'd' }), ...lines).output;
    assert.equal(said(':x 421 * CAP :Unknown command\r\n', ':x 670 * :go\r\n'), 'CAP LS 302\r\nSTARTTLS\r\n');
    assert.equal(said(':x CAP * LS :a tls b\r\n', ':x 670 * :go\r\n'), 'CAP LS 302\r\nCAP END\r\nSTARTTLS\r\n');
  });

  it('a client understands prefixes and tags, and quotes a refusal', () => {
    plays(irc.client!({ hostname: 'c', remoteid: 'd' }), '@time=2026-01-01T00:00:00Z :x 020 * :Please wait\r\nCAP * LS tls=1\r\n670 * :go\r\n');
    const { error } = playFails('PREAMBLE_REFUSED', irc.client!({ hostname: 'c', remoteid: 'd' }), ':x CAP * LS :tls\r\n:x 691 * :no \x1b[2J\r\n');
    assert.match(error.message, /\* :no \\u\{1b\}\[2J$/u);
  });
});
