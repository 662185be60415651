/** docs/proxy: there is a page for each preamble, and each trace on it is what the dialogue says and takes, octet by octet. */
import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { preambleNames, preambles } from 'libtlspool/preamble';
import type { Face, Farewell, PreambleName, ServerOutcome } from 'libtlspool/preamble';
import { blocksOf, octetsIn, replay, turnsOf } from '../support/doc-traces.js';
import type { Block } from '../support/doc-traces.js';
import { repoRoot } from '../support/program.js';

const folder = path.join(repoRoot, 'docs/proxy');
const ours = { hostname: 'mail.example.org', remoteid: 'mail.example.org', port: 993 };
const farewells: readonly Farewell[] = ['unavailable', 'timeout', 'limit', 'syntax', 'early'];

interface Page { readonly file: string; readonly text: string; readonly names: readonly PreambleName[]; readonly blocks: readonly Block[] }

/** Names of preambles are in the page's title, in code. */
function readPage(file: string): Page {
  const text = readFileSync(path.join(folder, file), 'utf8');
  const [title = ''] = text.split('\n');
  const words = [...title.matchAll(/`([^`]+)`/gu)].map(([, word = '']) => word);
  return { file, text, names: preambleNames.filter((name) => words.includes(name)), blocks: blocksOf(text) };
}

const pages = readdirSync(folder).filter((name) => name.endsWith('.md')).sort().map(readPage);
const protocolPages = pages.filter(({ names }) => names.length > 0);

/** What a page's traces lead to, one after the other: what was learnt is shown by later ones. */
class PageRun {
  #learnt: Omit<Face, 'hostname'> = {};
  #outcome: ServerOutcome | undefined;
  constructor(private readonly name: PreambleName) {}

  async run(block: Block): Promise<void> {
    const { server, client } = preambles[this.name];
    const { part, words } = block;
    if (part === 'client') {
      assert(client !== undefined);
      await replay(block, client(ours));
      return;
    }
    assert(server !== undefined, `${this.name} has no server role`);
    const face = { ...(words.has('learnt') && this.#learnt), hostname: ours.hostname };
    switch (part) {
      case 'serve':
        this.#outcome = await replay(block, server.serve({ face, tls: words.has('optional') ? 'optional' : 'required' }), server.farewell('early', face));
        return;
      case 'learn':
        assert(server.learn !== undefined, `${this.name} learns nothing`);
        this.#learnt = await replay(block, server.learn(ours.hostname)) ?? {};
        return;
      case 'settle':
        assert(server.settle !== undefined, `${this.name} has nothing to settle`);
        await replay(block, server.settle());
        return;
      case 'introduce':
        assert(this.#outcome?.next === 'plain' && this.#outcome.introduce !== undefined, 'the trace before leads to no introduction');
        await replay(block, this.#outcome.introduce());
        return;
      case 'farewell': {
        const said = turnsOf(block).map(({ who, pattern }) => [who, pattern.test(Buffer.from(server.farewell(who as Farewell, face)).toString('latin1'))]);
        assert.deepEqual(said, farewells.map((why) => [why, true]));
        return;
      }
      default:
        assert.fail(`there is no trace of kind ${part}`);
    }
  }
}

describe('documentation of the proxy: protocols', () => {
  it('each preamble of the registry has one page, by the name in its title', () => {
    assert.deepEqual(protocolPages.flatMap(({ names }) => names).sort(), [...preambleNames].sort());
  });
  it('docs/proxy.md leads to every page', () => {
    const index = readFileSync(path.join(repoRoot, 'docs/proxy.md'), 'utf8');
    assert.deepEqual(pages.filter(({ file }) => !index.includes(`](proxy/${file}`)).map(({ file }) => file), []);
  });

  for (const { file, text, names, blocks } of protocolPages) {
    for (const name of names) {
      const mine = blocks.filter(({ words }) => !preambleNames.some((other) => words.has(other)) || words.has(name));
      const { server, client, title } = preambles[name];
      const has = (part: string, ...words: string[]): boolean => mine.some((block) => block.part === part && words.every((word) => block.words.has(word)));

      it(`${file}: the traces of ${name} are what its dialogues say`, async () => {
        const run = new PageRun(name);
        for (const block of mine) {
          try {
            await run.run(block);
          } catch (error) {
            throw new Error(`docs/proxy/${file}:${block.line}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
          }
        }
      });
      it(`${file}: ${name} has a trace of each of its parts, and names its source`, () => {
        const hasFarewell = server !== undefined && server.farewell('limit', ours).length > 0;
        assert.deepEqual(
          { serve: has('serve'), optional: has('serve', 'optional'), learn: has('learn'), learnt: has('serve', 'learnt'), settle: has('settle'), farewell: has('farewell'), client: has('client') },
          {
            // A configuration with `none` and TLS that is optional is refused.
            serve: server !== undefined, optional: server !== undefined && name !== 'none', learn: server?.learn !== undefined, learnt: server?.learn !== undefined, settle: server?.settle !== undefined,
            farewell: hasFarewell, client: client !== undefined,
          },
        );
        for (const source of title.match(/RFC \d+(?: section [\d.]+)?/gu) ?? []) assert(text.includes(source), source);
      });
    }
  }
});

describe('documentation of the proxy: the traces themselves', () => {
  const [block] = blocksOf('# x\n```trace serve octets\nP: 01 "a…" 02\n-- TLS\n```\n') as [Block];

  it('octets are hexadecimal digits, and texts in quotes', () => {
    assert.deepEqual(octetsIn('00 0a0B "a 1" ff'), Buffer.from('\0\x0a\x0ba 1\xff', 'latin1'));
    assert.throws(() => octetsIn('0'), /octets/u);
    assert.throws(() => octetsIn('00 "a'), /octets/u);
  });
  it('an ellipsis stands for octets of any number, and nothing else does', () => {
    const [turn] = turnsOf(block);
    assert(turn !== undefined);
    assert(turn.pattern.test('\x01abcd\x02') && turn.pattern.test('\x01a\x02'));
    assert(!turn.pattern.test('\x01b\x02') && !turn.pattern.test('\x01a\x02\x03') && !turn.pattern.test('.a\x02'));
  });
  it('a trace that differs by an octet, by who speaks first or by how it ends is a failure', async () => {
    const { server } = preambles.irc;
    assert(server !== undefined);
    const serve = () => server.serve({ face: { hostname: 'irc.example.org' }, tls: 'required' });
    const good = 'C: PING x\nP: :irc.example.org PONG irc.example.org :x\nC: QUIT\nP: ERROR :Closing Link: (Quit)\n-- closed\n';
    const of = (text: string): Block => blocksOf(`\`\`\`trace serve\n${text}\`\`\`\n`)[0] as Block;
    await replay(of(good), serve());
    for (const bad of [good.replace(':x\n', ':y\n'), good.replace('-- closed', '-- TLS'), good.replace('C: QUIT\n', ''), good.replace(/^(C.*\n)(P.*\n)/u, '$2$1'), good.replace('P: ERROR', 'C: PING y\nP: ERROR')]) {
      await assert.rejects(replay(of(bad), serve()), (error) => error instanceof assert.AssertionError, bad);
    }
  });
});
