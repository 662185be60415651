// An IMAP4rev1 server (RFC 3501) for one user and one mailbox, on connections that somebody else protected: there is no line about TLS in it,
// no STARTTLS and no LOGINDISABLED.
import { fetchAnswer, fetchItems, marksSeen } from './fetch.mjs';
import { searchTest } from './search.mjs';
import { Input, chosen, parseArguments, parseDate, readCommand, string } from './wire.mjs';

const capabilities = 'IMAP4rev1 AUTH=PLAIN SASL-IR UIDPLUS IDLE UNSELECT';
const allFlags = '\\Answered \\Flagged \\Deleted \\Seen \\Draft';
const mostWrongPasswords = 3;
/** What a client gets to end its side as well. */
const endMs = 5_000;

/** An answer other than OK: NO for what cannot be done, BAD for what is no command. */
class Refused extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

const no = (text) => new Refused('NO', text);
const bad = (text) => new Refused('BAD', text);

/**
 * Serves one connection to its end; never rejects. `greets`: the client has not been greeted yet, as it has with STARTTLS.
 * @param {import('node:net').Socket} socket
 * @param {{inbox: import('./inbox.mjs').Inbox, user: string, password: string, greets: boolean}} service
 */
export async function serveImap(socket, service) {
  const session = new Session(socket, service);
  const onChange = () => session.onChange();
  service.inbox.on('change', onChange);
  try {
    await session.run();
  } catch (error) {
    // The connection broke, or what comes is not IMAP.
    if (socket.writable) socket.write(`* BYE ${error.code === undefined ? error.message : 'good bye'}\r\n`, 'latin1');
  } finally {
    service.inbox.off('change', onChange);
    socket.end();
    socket.setTimeout(endMs, () => socket.destroy());
    await session.hearOut();
  }
}

class Session {
  #socket;
  #service;
  #input;
  #wrongPasswords = 0;
  #isUser = false;
  #isIdle = false;
  /** What this client knows of the mailbox: mails by sequence number, and their flags. Undefined while none is selected. */
  #view;

  constructor(socket, service) {
    this.#socket = socket;
    this.#service = service;
    this.#input = new Input(socket);
  }

  async run() {
    if (this.#service.greets) this.#say(`* OK [CAPABILITY ${capabilities}] the demonstration mailbox is ready`);
    for (;;) {
      const command = await readCommand(this.#input, () => this.#say('+ go on'));
      if (command === undefined) return;
      await this.#answer(command);
      if (command.name === 'LOGOUT') return;
    }
  }

  /** To the end of the stream, without listening: a socket that is closed with unread octets in it is reset, and takes our last words along. */
  async hearOut() {
    try {
      while (await this.#input.line() !== undefined);
    } catch {
      this.#socket.destroy();
    }
  }

  /** While the client waits for news, it gets them. */
  onChange() { if (this.#isIdle) this.#news(); }

  async #answer({ tag, name, rest }) {
    try {
      const isByUid = name === 'UID';
      const [, verb = name, words = rest] = isByUid ? /^([a-z]+)(?: +([^]*))?$/iu.exec(rest) ?? [] : [];
      const [needs, method] = commands[isByUid ? `UID ${verb.toUpperCase()}` : name] ?? [];
      if (needs === undefined) throw bad('not a command that is known here');
      if (needs !== 'nothing' && !this.#isUser) throw bad('log in first');
      if (needs === 'mailbox' && this.#view === undefined) throw bad('select a mailbox first');
      const text = await method.call(this, parseArguments(words ?? ''), isByUid);
      // Sequence numbers must not move under a client that counts by them (RFC 3501 section 7.4.1).
      if (this.#view !== undefined && !['FETCH', 'STORE', 'SEARCH'].includes(name)) this.#news();
      this.#say(`${tag} OK ${text ?? `${name} completed`}`);
    } catch (error) {
      if (!(error instanceof Refused || error instanceof SyntaxError)) throw error;
      this.#say(`${tag} ${error.status ?? 'BAD'} ${error.message}`);
    }
  }

  #say(line) { this.#socket.write(`${line}\r\n`, 'latin1'); }

  /** Tells what has changed since the client was told last. */
  #news() {
    const { mails } = this.#service.inbox;
    const { known } = this.#view;
    for (let at = known.length - 1; at >= 0; at--) {
      if (mails.includes(known[at].mail)) continue;
      known.splice(at, 1);
      this.#say(`* ${at + 1} EXPUNGE`);
    }
    const fresh = mails.filter((mail) => !known.some((entry) => entry.mail === mail));
    for (const [at, entry] of known.entries()) {
      if (entry.flags !== entry.mail.flags) this.#say(`* ${at + 1} FETCH (UID ${entry.mail.uid} FLAGS (${[...entry.mail.flags].join(' ')}))`);
      entry.flags = entry.mail.flags;
    }
    known.push(...fresh.map((mail) => ({ mail, flags: mail.flags })));
    if (fresh.length > 0) this.#say(`* ${known.length} EXISTS`);
  }

  #logIn(user, password) {
    const { user: rightUser, password: rightPassword } = this.#service;
    if (user === rightUser && password === rightPassword) {
      this.#isUser = true;
      return;
    }
    if (++this.#wrongPasswords >= mostWrongPasswords) throw new Error('too many wrong passwords');
    throw no('[AUTHENTICATIONFAILED] wrong user name or password');
  }

  async authenticate([mechanism, initial]) {
    if (mechanism?.toUpperCase() !== 'PLAIN') throw no('only PLAIN is known here');
    if (initial === undefined) this.#say('+ ');
    const answer = initial ?? await this.#input.line() ?? '*';
    if (answer === '*') throw bad('AUTHENTICATE cancelled');
    const [, user, password] = Buffer.from(answer, 'base64').toString('latin1').split('\0');
    this.#logIn(user, password);
  }

  login([user, password]) { this.#logIn(user, password); }

  capability() { this.#say(`* CAPABILITY ${capabilities}`); }

  logout() { this.#say('* BYE come again'); }

  list([, pattern]) {
    if (pattern === '') this.#say('* LIST (\\Noselect) "/" ""');
    else if (/^(?:INBOX|\*|%)$/iu.test(pattern ?? '')) this.#say('* LIST () "/" INBOX');
  }

  lsub([, pattern]) { if (/^(?:INBOX|\*|%)$/iu.test(pattern ?? '')) this.#say('* LSUB () "/" INBOX'); }

  subscribe([mailbox]) { this.#inbox(mailbox); }

  status([mailbox, items]) {
    const inbox = this.#inbox(mailbox);
    const numbers = {
      MESSAGES: inbox.mails.length, RECENT: 0, UIDNEXT: inbox.uidNext, UIDVALIDITY: inbox.uidValidity,
      UNSEEN: inbox.mails.filter(({ flags }) => !flags.has('\\Seen')).length,
    };
    const asked = [items].flat().map((item) => item?.toUpperCase());
    if (asked.some((item) => numbers[item] === undefined)) throw bad('STATUS of what?');
    this.#say(`* STATUS INBOX (${asked.map((item) => `${item} ${numbers[item]}`).join(' ')})`);
  }

  #inbox(mailbox) {
    if (mailbox?.toUpperCase() !== 'INBOX') throw no('[NONEXISTENT] there is only INBOX');
    return this.#service.inbox;
  }

  select([mailbox]) { return this.#open(mailbox, false); }

  examine([mailbox]) { return this.#open(mailbox, true); }

  #open(mailbox, isReadOnly) {
    this.#view = undefined;
    const inbox = this.#inbox(mailbox);
    this.#say(`* FLAGS (${allFlags})`);
    this.#say(`* OK [PERMANENTFLAGS (${isReadOnly ? '' : allFlags})] flags that stay`);
    this.#say(`* ${inbox.mails.length} EXISTS`);
    this.#say('* 0 RECENT');
    this.#say(`* OK [UIDVALIDITY ${inbox.uidValidity}] UIDs are valid`);
    this.#say(`* OK [UIDNEXT ${inbox.uidNext}] the next one`);
    const unseen = inbox.mails.findIndex(({ flags }) => !flags.has('\\Seen'));
    if (unseen >= 0) this.#say(`* OK [UNSEEN ${unseen + 1}] the first one`);
    this.#view = { isReadOnly, known: inbox.mails.map((mail) => ({ mail, flags: mail.flags })) };
    return `[READ-${isReadOnly ? 'ONLY' : 'WRITE'}] INBOX is selected`;
  }

  close() {
    if (!this.#view.isReadOnly) this.#service.inbox.remove(this.#view.known.map(({ mail }) => mail).filter(({ flags }) => flags.has('\\Deleted')));
    this.#view = undefined;
  }

  unselect() { this.#view = undefined; }

  /** Entries of the view with their sequence numbers. */
  #chosen(set, isByUid) {
    const numbered = this.#view.known.map((entry, at) => ({ ...entry, sequence: at + 1 }));
    return chosen(String(set), numbered, ({ mail, sequence }) => (isByUid ? mail.uid : sequence));
  }

  fetch([set, asked], isByUid) {
    const items = fetchItems([asked ?? []].flat(), isByUid);
    for (const { mail, sequence } of this.#chosen(set, isByUid)) {
      const isNews = !this.#view.isReadOnly && marksSeen(items) && !mail.flags.has('\\Seen');
      if (isNews) this.#setFlags(mail, sequence, [...mail.flags, '\\Seen']);
      this.#say(fetchAnswer(mail, sequence, isNews ? [...new Set([...items, 'FLAGS'])] : items));
    }
  }

  store([set, how, ...words], isByUid) {
    const [, sign, isSilent] = /^([+-]?)FLAGS(\.SILENT)?$/iu.exec(how ?? '') ?? [];
    if (sign === undefined) throw bad('STORE what?');
    if (this.#view.isReadOnly) throw no('the mailbox is open for reading only');
    const flags = words.flat().map(knownFlag);
    for (const { mail, sequence } of this.#chosen(set, isByUid)) {
      const others = [...mail.flags].filter((flag) => !flags.includes(flag));
      this.#setFlags(mail, sequence, { '': flags, '+': [...others, ...flags], '-': others }[sign]);
      if (isSilent === undefined) this.#say(fetchAnswer(mail, sequence, isByUid ? ['UID', 'FLAGS'] : ['FLAGS']));
    }
  }

  /** On behalf of this client, which needs no news of it. */
  #setFlags(mail, sequence, flags) {
    this.#service.inbox.setFlags(mail, flags);
    this.#view.known[sequence - 1].flags = mail.flags;
  }

  search(words, isByUid) {
    const keys = words[0]?.toUpperCase?.() === 'CHARSET' ? words.slice(2) : words;
    const test = searchTest(keys, this.#view.known.map(({ mail }) => mail));
    const found = this.#view.known.flatMap(({ mail }, at) => (test(mail, at + 1) ? [isByUid ? mail.uid : at + 1] : []));
    this.#say(['* SEARCH', ...found].join(' '));
  }

  expunge([set], isByUid) {
    if (this.#view.isReadOnly) throw no('the mailbox is open for reading only');
    const entries = isByUid ? this.#chosen(set, true) : this.#view.known;
    this.#service.inbox.remove(entries.map(({ mail }) => mail).filter(({ flags }) => flags.has('\\Deleted')));
  }

  append([mailbox, ...words]) {
    const inbox = this.#inbox(mailbox);
    const text = words.at(-1);
    if (typeof text !== 'string') throw bad('APPEND what?');
    const flags = (words.find((word) => Array.isArray(word)) ?? []).map(knownFlag);
    const given = words.slice(0, -1).find((word) => typeof word === 'string');
    const date = given === undefined ? new Date() : parseDate(given);
    if (date === undefined) throw bad('that is no date');
    const { uid } = inbox.add(text, { flags, date });
    return `[APPENDUID ${inbox.uidValidity} ${uid}] there it is`;
  }

  /** RFC 2177. */
  async idle() {
    this.#say('+ idling');
    this.#isIdle = this.#view !== undefined;
    if (this.#isIdle) this.#news();
    const line = await this.#input.line().finally(() => { this.#isIdle = false; });
    if (line?.toUpperCase() !== 'DONE') throw bad('DONE was to come');
  }

  noop() {}
}

function knownFlag(flag) {
  const found = allFlags.split(' ').find((known) => known.toLowerCase() === String(flag).toLowerCase());
  if (found === undefined) throw no(`there is no flag ${string(String(flag).slice(0, 40))}`);
  return found;
}

const { authenticate, login, capability, logout, list, lsub, subscribe, status, select, examine, close, unselect, fetch, store, search, expunge, append, idle, noop } = Session.prototype;

/** What a command needs to be allowed, and what it does. */
const commands = {
  'CAPABILITY': ['nothing', capability], 'NOOP': ['nothing', noop], 'LOGOUT': ['nothing', logout],
  'LOGIN': ['nothing', login], 'AUTHENTICATE': ['nothing', authenticate],
  'SELECT': ['user', select], 'EXAMINE': ['user', examine], 'LIST': ['user', list], 'LSUB': ['user', lsub], 'STATUS': ['user', status],
  'SUBSCRIBE': ['user', subscribe], 'UNSUBSCRIBE': ['user', subscribe], 'APPEND': ['user', append], 'IDLE': ['user', idle],
  'CHECK': ['mailbox', noop], 'CLOSE': ['mailbox', close], 'UNSELECT': ['mailbox', unselect], 'EXPUNGE': ['mailbox', expunge],
  'FETCH': ['mailbox', fetch], 'STORE': ['mailbox', store], 'SEARCH': ['mailbox', search],
  'UID FETCH': ['mailbox', fetch], 'UID STORE': ['mailbox', store], 'UID SEARCH': ['mailbox', search], 'UID EXPUNGE': ['mailbox', expunge],
};
