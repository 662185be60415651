// The first mail in the box.

/** @param {string} to @returns {string} */
export function welcome(to) {
  const now = new Date();
  return [
    'From: "TLS Pool" <pool@localhost>', `To: ${to}`, 'Subject: Welcome', `Date: ${now.toUTCString().replace('GMT', '+0000')}`,
    `Message-ID: <welcome.${now.getTime()}@localhost>`, 'MIME-Version: 1.0', 'Content-Type: text/plain; charset=utf-8', '',
    'You read this over TLS, and the program that keeps it knows nothing of TLS.', '',
    'The proxy spoke IMAP with you up to STARTTLS. The pool, which has the key, did the handshake. Then the mailbox', 'got the protected connection, in its first state: nothing that was said before is left.', '',
    'Mail to any address at the SMTP port arrives here.', '',
  ].join('\r\n');
}
