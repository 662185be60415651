/** LMTP (RFC 2033): STARTTLS as in SMTP, and LHLO in place of EHLO and HELO (section 4.1). */
import { mailPreamble } from './smtp.js';

export const lmtp = mailPreamble({ name: 'lmtp', title: 'LMTP (RFC 2033, RFC 3207)', word: 'LMTP', hellos: ['LHLO'] });
