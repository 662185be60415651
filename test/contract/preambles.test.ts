/** Every preamble of the registry, both roles, against every kind of bad input. What a peer of each protocol says is in support/preamble-scripts.ts. */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import { preambles } from 'libtlspool/preamble';
import type { ClientOptions, ClientOutcome, Dialogue, Farewell, Preamble, ServerOutcome, ServerRole, TlsMode } from 'libtlspool/preamble';
import { converse, face, octetsOf, play, playFails, plays, serveOptions, withConversation } from '../support/dialogue.js';
import type { Octets, Played } from '../support/dialogue.js';
import { countDescriptors } from '../support/native-fds.js';
import { preambleScripts } from '../support/preamble-scripts.js';
import type { BackendScript, ClientScript, ServerScript } from '../support/preamble-scripts.js';

/** Begins as the ClientHello of every TLS version does: record header, handshake header, version, random. */
const clientHello = Buffer.concat([Buffer.from('1603010200010001fc0303', 'hex'), Buffer.alloc(32, 0xa5), Buffer.from('20', 'hex'), Buffer.alloc(64, 0xc3)]);
const farewells: readonly Farewell[] = ['unavailable', 'timeout', 'limit', 'syntax', 'early'];
const codes = ['PREAMBLE', 'PREAMBLE_REFUSED', 'PEER_CLOSED', 'TIMEOUT'];
const slowMs = 40;
const join = (...parts: readonly Octets[]): Buffer => Buffer.concat(parts.map(octetsOf));
const latin1 = (octets: Uint8Array): string => Buffer.from(octets).toString('latin1');
const isRight = (said: string, expected: string | RegExp): void => typeof expected === 'string' ? assert.equal(said, expected) : assert.match(said, expected);
const splits = (octets: Octets): (readonly [Buffer, Buffer])[] => {
  const whole = octetsOf(octets);
  return Array.from({ length: whole.length + 1 }, (_none, at) => [whole.subarray(0, at), whole.subarray(at)] as const);
};
const singly = (octets: Octets): Buffer[] => [...octetsOf(octets)].map((octet) => Buffer.of(octet));

/** What is the same for both roles: a dialogue, and what its peer says. */
interface Case<Result> {
  readonly start: () => Dialogue<Result>;
  readonly good: Octets;
  readonly injection: Octets | undefined;
  readonly isDirect: boolean;
  /** A ClientHello may be the first word. */
  readonly mayBeDirect: boolean;
  /** All that our side has said once it is time for TLS. */
  readonly said: (played: Played<Result>) => string;
  readonly says: string | RegExp;
  readonly broken: readonly Octets[];
  readonly limits: readonly { readonly what: string; readonly at: Octets; readonly over: Octets }[];
}

const serverCase = ({ serve }: ServerRole, script: ServerScript, tls: TlsMode = 'required'): Case<ServerOutcome> => ({
  ...script, injection: script.injection, isDirect: script.direct === true, mayBeDirect: script.mayBeDirect === true, start: () => serve(serveOptions(tls, script.face)),
  said: ({ output, result, error }) => {
    assert.equal(error, undefined);
    assert(result?.next === 'tls', `the dialogue ended with ${String(result?.next)}`);
    assert.equal(result.direct === true, script.direct === true || script.withoutGoAhead === true);
    return latin1(output) + latin1(result.goAhead);
  },
});

const clientCase = (start: (options: ClientOptions) => Dialogue<ClientOutcome>, script: ClientScript): Case<ClientOutcome> => ({
  ...script, isDirect: false, mayBeDirect: false, start: () => start({ hostname: 'client.example.org', remoteid: 'mail.example.org', ...script.options }),
  said: ({ output, error }) => {
    assert.equal(error, undefined);
    return latin1(output);
  },
});

function good<Result>({ start, good: input, isDirect, said, says }: Case<Result>): void {
  it('a good dialogue ends at the go-ahead, and has taken exactly its own octets', async () => {
    const played = play(start(), input);
    isRight(said(played), says);
    assert.equal(latin1(played.left), isDirect ? latin1(octetsOf(input)) : '');
    const driven = await converse(start(), [input], { staysOpen: true });
    isRight(said(driven), says);
    assert.equal(driven.isQuiet, !isDirect);
  });

  it('every split of the dialogue into two pieces, and one octet at a time, make no difference', async () => {
    for (const pieces of [...splits(input), singly(input)]) {
      isRight(said(play(start(), ...pieces)), says);
      isRight(said(await converse(start(), pieces, { staysOpen: true })), says);
    }
  });
}

function bad<Result>({ start, good: input, injection, isDirect, mayBeDirect, broken, limits, said, says }: Case<Result>): void {
  for (const [what, octets] of [['commands in plain text', injection], ['a ClientHello', clientHello]] as const) {
    if (octets === undefined || isDirect) continue;
    it(`${what} in the same segment as the last octet before the go-ahead: either PREAMBLE, or the connection is not quiet`, async () => {
      const { error, isQuiet } = await converse(start(), [join(input, octets)], { staysOpen: true });
      if (error === undefined) assert.equal(isQuiet, false);
      else assert.equal(error.code, 'PREAMBLE');
    });

    it(`${what} in the next segment: the connection is not quiet, and nothing of it was taken`, () => withConversation(async (conversation, peer) => {
      peer.send(input);
      await conversation.run(start());
      assert.equal(conversation.quiet(), true);
      peer.send(octets);
      assert.equal(conversation.quiet(), false);
      const rest = await conversation.run((function* left(): Dialogue<Buffer> { return yield { do: 'octets', count: octets.length }; })());
      assert.equal(latin1(rest), latin1(octetsOf(octets)));
    }));
  }

  if (!isDirect && !mayBeDirect && octetsOf(input).length > 0) {
    it('a ClientHello where the first word should be is PREAMBLE or PREAMBLE_REFUSED at once', async () => {
      const { error } = await converse(start(), [clientHello], { staysOpen: true, deadlineMs: 2000 });
      assert.match(String(error?.code), /^PREAMBLE/u, error?.message);
    });
  }

  // Where TLS begins at once there may be nothing to wait for: the pool sees how it ends.
  if (!isDirect && octetsOf(input).length > 0) {
    it('a peer that closes early is PEER_CLOSED, whichever octet was the last', async () => {
      const whole = octetsOf(input);
      for (let at = 0; at < whole.length; at++) {
        playFails('PEER_CLOSED', start(), whole.subarray(0, at));
        assert.equal((await converse(start(), [whole.subarray(0, at)])).error?.code, 'PEER_CLOSED', `closed behind octet ${at}`);
      }
    });

    it('a peer that never says its last octet is TIMEOUT', async () => {
      const { error } = await converse(start(), singly(octetsOf(input).subarray(0, -1)), { staysOpen: true, deadlineMs: slowMs });
      assert.equal(error?.code, 'TIMEOUT');
    });
  }

  it('more octets than the conversation allows are PREAMBLE, exactly as many are fine', async () => {
    const count = isDirect ? 0 : octetsOf(input).length;
    isRight(said(await converse(start(), [input], { octets: count, staysOpen: true })), says);
    if (count > 0) assert.equal((await converse(start(), [input], { octets: count - 1 })).error?.code, 'PREAMBLE');
  });

  broken.forEach((octets, index) => {
    it(`broken input ${index + 1} is PREAMBLE: ${JSON.stringify(latin1(octetsOf(octets).subarray(0, 40)))}`, async () => {
      playFails('PREAMBLE', start(), octets);
      assert.equal((await converse(start(), [octets], { staysOpen: true, deadlineMs: 2000 })).error?.code, 'PREAMBLE');
    });
  });

  for (const { what, at, over } of limits) {
    it(`the limit of ${what} holds: at it the dialogue goes on, one over it is PREAMBLE`, async () => {
      said(play(start(), at));
      said(await converse(start(), [at], { octets: 1 << 20 }));
      playFails('PREAMBLE', start(), over);
      assert.equal((await converse(start(), [over], { octets: 1 << 20 })).error?.code, 'PREAMBLE');
    });
  }

  garbage(start, input);
}

/** Octets, with a taste for the beginnings of good ones. */
const noise = (input: Octets): fc.Arbitrary<Buffer> => {
  const whole = octetsOf(input);
  return fc.record({ keep: fc.nat({ max: whole.length }), tail: fc.array(fc.oneof(fc.uint8Array({ maxLength: 80 }), fc.constantFrom('\r\n', '\n', '\r', '\0', ' ', '* ', 'a1 ').map(octetsOf)), { maxLength: 8 }) })
    .map(({ keep, tail }) => join(whole.subarray(0, keep), ...tail));
};

function garbage(start: () => Dialogue<unknown>, input: Octets): void {
  it('binary garbage ends in an outcome or in a typed error, in memory and on a socket', async () => {
    const isTyped = ({ error }: Played<unknown>): void => assert(error === undefined || codes.includes(error.code), `${error?.code ?? ''} ${error?.message ?? ''}`);
    fc.assert(fc.property(noise(input), (octets) => isTyped(play(start(), octets))), { numRuns: 200 });
    await fc.assert(fc.asyncProperty(noise(input), async (octets) => isTyped(await converse(start(), [octets]))), { numRuns: 30 });
  });
}

function server(preamble: Preamble, role: ServerRole, script: ServerScript): void {
  const dialogue = serverCase(role, script);
  good(dialogue);
  bad(dialogue);

  it('with TLS optional, a client that asks for it gets the same go-ahead', () => {
    const { result } = play(serverCase(role, script, 'optional').start(), script.good);
    assert(result?.next === 'tls');
    assert(script.direct === true || latin1(result.refusal) !== latin1(result.goAhead));
  });

  for (const [command, reply] of script.withheld) {
    it(`what needs TLS is refused without it, and the client may go on: ${JSON.stringify(latin1(octetsOf(command)))}`, () => {
      const { result, output } = plays(dialogue.start(), join(command, script.good));
      assert.match(output, reply);
      assert.equal(result.next, 'tls');
    });
  }

  const { goodbye, plain } = script;
  if (goodbye !== undefined) {
    it('goodbye is answered and ends the dialogue', () => {
      for (const tls of ['required', 'optional'] as const) assert.deepEqual(plays(serverCase(role, script, tls).start(), goodbye).result, { next: 'end' });
    });
  }
  if (plain !== undefined) {
    it('with TLS optional, what is not for us is the backend\'s, octet for octet, in every split; with TLS required it is not', () => {
      for (const pieces of splits(plain.input)) {
        const { result, error, left } = play(serverCase(role, script, 'optional').start(), ...pieces);
        assert(result?.next === 'plain', error?.message);
        assert.equal(latin1(result.ahead), latin1(octetsOf(plain.ahead)));
        assert(latin1(octetsOf(plain.input)).endsWith(latin1(result.ahead) + latin1(left)), 'what is ahead, and what is left, are the end of what the client said');
      }
      assert.notEqual(play(dialogue.start(), plain.input).result?.next, 'plain');
    });
  }

  it('farewells are short, and are there exactly when the protocol has words for them', () => {
    for (const why of farewells) {
      const words = role.farewell(why, { ...face, ...script.face });
      assert(words.length <= 512);
      assert.equal(words.length > 0, script.hasFarewell, why);
      if (preamble.client !== undefined && script.hasFarewell && why === 'unavailable') {
        // Whatever a client of the protocol makes of it, it does not begin TLS.
        const { error } = play(preamble.client({ hostname: 'c.example.org', remoteid: 'example.org' }), words);
        assert(error !== undefined && codes.includes(error.code), 'a client takes a farewell for a go-ahead');
      }
    }
  });

  it('there is a script of a backend if there is something to learn from one', () => {
    assert.equal(script.backend !== undefined, role.learn !== undefined);
    assert.equal(script.backend?.settles !== undefined, role.settle !== undefined);
  });
  if (script.backend !== undefined) backend(role, script.backend);
}

function backend({ learn, settle }: ServerRole, script: BackendScript): void {
  const teach = (): Dialogue<unknown> => {
    assert(learn !== undefined);
    return learn('mail.example.org');
  };

  it('what a plain-text backend says is learnt, in every split, and it is left in good manners', () => {
    for (const pieces of splits(script.learn)) assert.deepEqual(plays(teach(), ...pieces), { result: script.learnt, output: script.asks });
  });

  it('a backend that turns us away is PREAMBLE_REFUSED, one that closes early PEER_CLOSED', () => {
    for (const octets of script.refusals) playFails('PREAMBLE_REFUSED', teach(), octets);
    for (const [head, tail] of splits(script.learn)) if (tail.length > 0) playFails('PEER_CLOSED', teach(), head);
  });
  garbage(teach, script.learn);

  if (settle === undefined || script.settles === undefined) return;
  const { settles } = script;
  it('settling takes what the client must not see again, in every split, and nothing behind it', async () => {
    for (const pieces of splits(settles)) plays(settle(), ...pieces);
    assert.equal(latin1(play(settle(), join(settles, 'next')).left), 'next');
    assert.equal((await converse(settle(), [join(settles, 'next')], { staysOpen: true })).isQuiet, false);
    for (const [head, tail] of splits(settles)) if (tail.length > 0) playFails('PEER_CLOSED', settle(), head);
  });
  garbage(settle, settles);
}

function client(start: (options: ClientOptions) => Dialogue<ClientOutcome>, script: ClientScript): void {
  const dialogue = clientCase(start, script);
  good(dialogue);
  bad(dialogue);
  script.refusals.forEach((octets, index) => {
    it(`refusal ${index + 1} is PREAMBLE_REFUSED: ${JSON.stringify(latin1(octetsOf(octets).subarray(0, 60)))}`, async () => {
      playFails('PREAMBLE_REFUSED', dialogue.start(), octets);
      for (const pieces of [[octets], singly(octets)]) {
        assert.equal((await converse(dialogue.start(), pieces, { staysOpen: true, deadlineMs: 2000 })).error?.code, 'PREAMBLE_REFUSED');
      }
    });
  });
}

describe('preambles of the registry', () => {
  countDescriptors();

  it('each has a script for each of its roles, and no script is without a preamble', () => {
    const shape = (table: Readonly<Record<string, { server?: unknown; client?: unknown }>>): string[] =>
      Object.entries(table).flatMap(([name, { server: one, client: two }]) => [...(one === undefined ? [] : [`${name} server`]), ...(two === undefined ? [] : [`${name} client`])]).sort();
    assert.deepEqual(shape(preambleScripts), shape(preambles));
    for (const [name, preamble] of Object.entries(preambles)) assert.equal(preamble.name, name);
  });

  for (const preamble of Object.values<Preamble>(preambles)) {
    const script = preambleScripts[preamble.name];
    const [ours, theirs] = [preamble.server, script?.server];
    if (ours !== undefined && theirs !== undefined) describe(`${preamble.name} server`, () => server(preamble, ours, theirs));
    const [asks, answers] = [preamble.client, script?.client];
    if (asks !== undefined && answers !== undefined) describe(`${preamble.name} client`, () => client(asks, answers));
  }
});
