// One mailbox in memory, which IMAP shows and SMTP fills. It ends with its process.
import { EventEmitter } from 'node:events';

/** Mails that it keeps; older ones go when newer ones come. */
const mostMails = 1000;

/**
 * A mail: `uid` never changes and is never used twice, `text` has its octets as latin1, `flags` as IMAP spells them.
 * @typedef {{uid: number, text: string, flags: Set<string>, date: Date}} Mail
 */

/** Emits 'change' when a mail came, went, or got other flags. */
export class Inbox extends EventEmitter {
  /** Differs between two runs, so that no client takes the mails of one for those of the other. */
  uidValidity = Math.floor(Date.now() / 1000);
  uidNext = 1;
  /** @type {Mail[]} The oldest first. */
  mails = [];

  constructor() {
    super();
    this.setMaxListeners(0); // one for each client that waits for news
  }

  /** @returns {Mail} */
  add(text, { flags = [], date = new Date() } = {}) {
    const mail = { uid: this.uidNext++, text, flags: new Set(flags), date };
    this.mails = [...this.mails, mail].slice(-mostMails);
    this.emit('change');
    return mail;
  }

  remove(mails) {
    this.mails = this.mails.filter((mail) => !mails.includes(mail));
    this.emit('change');
  }

  setFlags(mail, flags) {
    mail.flags = new Set(flags);
    this.emit('change');
  }
}
