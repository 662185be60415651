import { describeCases } from './native-cases.js';

/** What no ordinary program does; each case of test/fuzz/native/reauth_peers.cc has its honest twin beside it or in test/native. */
const cases = [
  ['other-name', 'a ClientHello of a renegotiation that names another server ends the session with illegal_parameter'],
  ['other-certificate-of-ours', 'a client cannot make its server show another certificate in a renegotiation'],
  ['unasked', 'a renegotiation that the client begins is refused, also after one that it was asked for'],
  ['other-certificate-of-the-server', 'a server cannot become another one in a renegotiation'],
  ['server-asks-too-often', 'a server is answered 32 times at once and no more: by no_renegotiation, or on TLS 1.3 by the end of the session'],
  ['server-without-extended-master-secret', 'a HelloRequest without extended master secret is answered by no_renegotiation'],
  ['server-stops-in-the-middle', 'a server that begins a renegotiation and stops ends the session of its client at the deadline of a handshake'],
] as const;

describeCases('engine: peers that misuse a reauthentication, under the address and undefined sanitizers', 'reauth_peers', cases);
