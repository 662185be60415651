/** XMPP before TLS, and the reading of XML. Bad input of all kinds is in contract/preambles.test.ts. */
import assert from 'node:assert/strict';
import { preambles } from 'libtlspool/preamble';
import { face, octetsOf, optional, play, playFails, plays, required, serveOptions } from '../support/dialogue.js';

const c2s = preambles['xmpp-client'];
const s2s = preambles['xmpp-server'];
const { serve, learn, farewell } = c2s.server!;
const streams = 'http://etherx.jabber.org/streams';
const tls = 'urn:ietf:params:xml:ns:xmpp-tls';
const header = (more = ' to="im.example.org"', content = 'jabber:client'): string => `<stream:stream xmlns='${content}' xmlns:stream="${streams}"${more} version='1.0'>`;
const starttls = `<starttls xmlns='${tls}'/>`;
const auth = '<auth xmlns=\'urn:ietf:params:xml:ns:xmpp-sasl\' mechanism=\'PLAIN\'>AGpvZQBzZWNyZXQ=</auth>';
const answerOf = (more?: string): string => plays(serve(required), header(more), starttls).output;

describe('preamble xmpp', () => {
  it('`to` is echoed as `from`, `from` as `to` without its resource, and both are escaped', () => {
    assert.match(answerOf(' to="im.example.org" from=\'joe@im.example.org/home\''), / from='im\.example\.org' to='joe@im\.example\.org' xml:lang='en' version='1\.0'>/u);
    assert.match(answerOf(' to="a\'b>c"'), / from='a&#39;b&#62;c' xml:lang/u);
    assert.match(answerOf(''), / from='mail\.example\.org' xml:lang/u);
  });

  it('a name in UTF-8 comes back octet for octet', () => {
    const name = octetsOf(Buffer.from('bücher.example'));
    const { output } = plays(serve(required), header(` to='${name.toString('latin1')}'`), starttls);
    assert.match(output, new RegExp(` from='${name.toString('latin1')}'`, 'u'));
  });

  it('each stream has an id of its own', () => {
    const ids = Array.from({ length: 100 }, () => / id='([^']+)'/u.exec(answerOf())?.[1]);
    assert.equal(new Set(ids).size, 100);
  });

  it('starttls may be written in two tags, with white space before it', () => {
    assert.equal(plays(serve(required), header(), `\r\n\t <starttls xmlns="${tls}" ></starttls>`).result.next, 'tls');
  });

  it('the refusal is <failure/> and the end of the stream (section 5.4.2.2)', () => {
    const { result } = plays(serve(required), header(), starttls);
    assert(result.next === 'tls');
    assert.equal(Buffer.from(result.refusal).toString(), `<failure xmlns='${tls}'/></stream:stream>`);
  });

  it('with TLS required, SASL gets <encryption-required/> and may go on; any stanza ends the stream with <policy-violation/>', () => {
    const { result, output } = plays(serve(required), header(), auth, starttls);
    assert.equal(result.next, 'tls');
    assert(output.endsWith('</stream:features><failure xmlns=\'urn:ietf:params:xml:ns:xmpp-sasl\'><encryption-required/></failure>'));
    const ended = plays(serve(required), header(), '<iq type=\'get\'>');
    assert.deepEqual(ended.result, { next: 'end', refused: 'the client did not ask for TLS' });
    assert.match(ended.output, /<stream:error><policy-violation xmlns='urn:ietf:params:xml:ns:xmpp-streams'\/>.*<\/stream:error><\/stream:stream>$/u);
  });

  it('nothing but STARTTLS is offered where TLS is required; the backend\'s features, too, where it is optional', () => {
    const capabilities = ['<mechanisms/>', '<starttls xmlns=\'x\'/>', '<register/>'];
    const offered = (mode: 'required' | 'optional'): string | undefined => /<stream:features>(.*)<\/stream:features>/u.exec(plays(serve(serveOptions(mode, { capabilities })), header(), starttls).output)?.[1];
    assert.equal(offered('required'), `<starttls xmlns='${tls}'><required/></starttls>`);
    assert.equal(offered('optional'), `${starttls}<mechanisms/><register/>`);
  });

  it('with TLS optional the backend gets the client\'s own header, its answer is swallowed, and the element is passed on', () => {
    const { result } = plays(serve(optional), header(' to="a.example"') + auth);
    assert(result.next === 'plain' && result.introduce !== undefined);
    assert.equal(Buffer.from(result.ahead).toString(), auth);
    const backend = `<?xml version='1.0'?>${header(' from="a.example" id="1"')}<stream:features>${auth}</stream:features>`;
    assert.equal(plays(result.introduce(), backend).output, header(' to="a.example"'));
    playFails('PREAMBLE', result.introduce(), `${backend}<presence/>`);
    playFails('PREAMBLE_REFUSED', result.introduce(), `${header()}<stream:error><host-unknown/></stream:error></stream:stream>`);
  });

  it('a backend that does not serve our name teaches nothing, and is no error', () => {
    const { result } = plays(learn!('mail.example.org'), `${header()}<stream:error><host-unknown xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>`.slice(0, -16));
    assert.deepEqual(result, {});
  });

  it('a farewell is a stream of its own, and well-formed behind a header of ours too', () => {
    const said = Buffer.from(farewell('unavailable', face)).toString();
    assert.match(said, /^<stream:stream xmlns='jabber:client' [^>]* from='mail\.example\.org' version='1\.0'><stream:error><internal-server-error /u);
    assert(said.endsWith('</stream:error></stream:stream>'));
    assert.match(Buffer.from(s2s.server!.farewell('limit', face)).toString(), /xmlns='jabber:server'.*<resource-constraint /u);
  });

  it('a client says whom it wants, a server also who it is; neither breaks out of its attribute', () => {
    const said = (role: typeof c2s, remoteid: string): string => play(role.client!({ hostname: 'a\'b.example', remoteid }), '').output.toString();
    assert.equal(said(c2s, 'im.example'), `<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='${streams}' to='im.example' version='1.0'>`);
    assert.equal(said(s2s, 'x\'><evil>ü'), `<?xml version='1.0'?><stream:stream xmlns='jabber:server' xmlns:stream='${streams}' from='a&#39;b.example' to='x&#39;&#62;&#60;evil&#62;ü' version='1.0'>`);
  });

  it('the condition of a stream error is in the error', () => {
    const { error } = playFails('PREAMBLE_REFUSED', c2s.client!({ hostname: 'c', remoteid: 'd' }), `${header()}<stream:error><host-gone xmlns='urn:ietf:params:xml:ns:xmpp-streams'/><text>x</text></stream:error></stream:stream>`);
    assert.equal(error.message, 'the other end ends the stream with an error: host-gone');
  });

  it('elements are read eight deep, and no deeper', () => {
    const deep = (depth: number): string => `<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>${'<a>'.repeat(depth)}<b/>${'</a>'.repeat(depth)}</auth>`;
    assert.equal(plays(serve(required), header(), deep(8), starttls).result.next, 'tls');
    playFails('PREAMBLE', serve(required), header(), deep(9));
  });
});
