/** PINENTRY: a program that asks a person for the PIN of a locked key. It unlocks keys for all users of the pool, which is why it takes an operator. */
import type { PinEntry, PinQuestion } from '../api/services.js';
import type { V2Connection } from './connection.js';
import type { V2Call } from './dispatch.js';
import { V2Error } from './errors.js';
import { arms, codec, commands } from './frames.js';
import { answerMs, question } from './registrations.js';

const noPin = Buffer.alloc(arms.pinentry.pin.size);

/** No reply when it succeeds: the message stays with us until a PIN is needed. */
export function registerPinEntry({ v2, connection, frame }: V2Call): void {
  codec.patch(frame, 'pinentry', { pin: noPin });
  const { timeoutUs } = codec.read(frame, 'pinentry');
  v2.registrations.add(v2.front.parts, connection, 'pin', () => v2.front.services.offerPinEntry(new Terminal(connection, frame), answerMs(timeoutUs / 1000)));
}

class Terminal implements PinEntry {
  /** The registration, then the last answer, by which the client has registered anew. Never with a PIN in it. */
  constructor(private readonly connection: V2Connection, private frame: Buffer) {}

  async enter({ localid, attempt }: PinQuestion): Promise<Buffer> {
    codec.patch(this.frame, 'pinentry', {
      attempt, prompt: 'Enter PIN: ', tokenManuf: 'TLS Pool', tokenModel: '', tokenSerial: '', tokenLabel: localid,
    });
    const answer = await question(this.connection, this.frame, commands.PINENTRY);
    this.frame = answer;
    const { pin: field } = codec.read(answer, 'pinentry');
    const nul = field.indexOf(0);
    const pin = Buffer.from(field.subarray(0, nul < 0 ? field.length : nul));
    codec.patch(answer, 'pinentry', { pin: noPin });
    if (codec.read(answer, 'head').cmd === commands.PINENTRY && pin.length > 0) return pin;
    pin.fill(0);
    throw new V2Error('CLIENT_REFUSES_CALLBACK');
  }
}
