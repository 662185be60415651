/** Rules of the house that no compiler checks: imports point one way, files stay readable, descriptors are CLOEXEC. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../../..');
const maxLines = 400;

interface Source { readonly file: string; readonly text: string }

/** Files below a folder of the checkout whose names match. */
function sources(folder: string, name: RegExp): Source[] {
  const full = path.join(root, folder);
  if (!existsSync(full)) return [];
  return readdirSync(full, { recursive: true, encoding: 'utf8' })
    .filter((file) => name.test(file) && !/(?:^|\/)(?:node_modules|build|dist|prebuilds)\//u.test(file))
    .map((file) => ({ file: path.join(folder, file), text: readFileSync(path.join(full, file), 'utf8') }));
}

const typescript = (...folders: string[]): Source[] => folders.flatMap((folder) => sources(folder, /\.ts$/u));
const native = (): Source[] => ['libtlspool/native/src', 'daemon/engine/src'].flatMap((folder) => sources(folder, /\.(?:cc|cpp|c|h|hh|hpp)$/u));

/** What a file imports: packages by name, files as paths from the root. */
export function importsOf({ file, text }: Source): string[] {
  const found = [...text.matchAll(/(?:^|\n)\s*(?:import|export)\b[^;'"]*?(?:from\s*)?['"]([^'"]+)['"]|\b(?:import|require)\s*\(\s*['"]([^'"]+)['"]/gu)];
  return found.map((match) => match[1] ?? match[2] ?? '').map((name) => (name.startsWith('.') ? path.join(path.dirname(file), name) : name));
}

/** Room -> what it must not import. Packages by name and folders by path. */
const walls: Record<string, RegExp> = {
  'libtlspool/src': /^(?:tlspool|tlspool-common|tlspool-proxy)(?:\/|$)|^(?:common|daemon|proxy|test|bench)\//u,
  'common/src': /^(?:tlspool|tlspool-proxy)(?:\/|$)|^(?:libtlspool|daemon|proxy|test|bench)\//u,
  'daemon/src': /^tlspool-proxy(?:\/|$)|^(?:libtlspool|common|proxy|test|bench)\//u,
  'proxy/src': /^tlspool(?:\/|$)|^(?:libtlspool|common|daemon|test|bench)\//u,
};
/** A package takes libtlspool by its name, so that what is behind its exports stays private. */
const allowed = new Set(Object.keys((JSON.parse(readFileSync(path.join(root, 'libtlspool/package.json'), 'utf8')) as { exports: object }).exports)
  .map((name) => path.join('libtlspool', name)));

const breaches = (room: string, source: Source): string[] =>
  importsOf(source).filter((name) => !allowed.has(name) && walls[room]?.test(name) === true).map((name) => `${source.file} imports ${name}`);

/** Code without comments and texts. */
const bare = (text: string): string => text.replace(/\/\*[\s\S]*?\*\/|\/\/[^\n]*/gu, '').replace(/"(?:[^"\\\n]|\\.)*"/gu, '""');

/** System calls that make a descriptor -> what must be among their arguments. */
const cloexec: readonly (readonly [call: RegExp, flag: RegExp])[] = [
  [/\brecvmsg\s*\(/gu, /MSG_CMSG_CLOEXEC/u],
  [/\brecvmmsg\s*\(/gu, /MSG_CMSG_CLOEXEC/u],
  [/(?<![\w.>])(?:::)?(?:socket|socketpair)\s*\(/gu, /SOCK_CLOEXEC|socket_flags/u],
  [/\baccept4\s*\(/gu, /SOCK_CLOEXEC/u],
  [/\bepoll_create1\s*\(/gu, /EPOLL_CLOEXEC/u],
  [/\beventfd\s*\(/gu, /EFD_CLOEXEC/u],
  [/\btimerfd_create\s*\(/gu, /TFD_CLOEXEC/u],
  [/(?<!\w)::open(?:at)?\s*\(/gu, /O_CLOEXEC/u],
  [/\bpipe2\s*\(/gu, /O_CLOEXEC/u],
  [/\bmemfd_create\s*\(/gu, /MFD_CLOEXEC/u],
];
/** Their forms that cannot be CLOEXEC from the start, between which a fork would inherit the descriptor. */
const forbidden = /(?<![\w.>])(?:::)?(?:accept|dup|dup2|pipe|creat|epoll_create)\s*\(|\bF_DUPFD\b(?!_CLOEXEC)/u;

function argumentsAt(text: string, start: number): string {
  let depth = 1;
  let end = start;
  for (; end < text.length && depth > 0; end++) depth += text[end] === '(' ? 1 : text[end] === ')' ? -1 : 0;
  return text.slice(start, end);
}

function openWithoutCloexec({ file, text }: Source): string[] {
  const code = bare(text);
  const calls = cloexec.flatMap(([call, flag]) => [...code.matchAll(call)]
    .map((match) => match[0] + argumentsAt(code, match.index + match[0].length)).filter((use) => !flag.test(use)));
  const wrong = forbidden.exec(code);
  return [...calls, ...(wrong === null ? [] : [wrong[0]])].map((use) => `${file}: ${use}`);
}

describe('house rules', () => {
  it('there is something to check', () => {
    assert(typescript('libtlspool/src').length > 5 && typescript('daemon/src').length > 5 && native().length > 10);
  });

  for (const room of Object.keys(walls)) {
    it(`imports point one way: ${room}`, () => {
      assert.deepEqual(typescript(room).flatMap((source) => breaches(room, source)), []);
    });
  }

  it('the check of imports sees every form of import', () => {
    const forms = ["import x from '../../daemon/src/y.js';", "import type { X } from 'tlspool';", "export * from 'tlspool/z';", "import 'tlspool-proxy';",
      "await import('../../proxy/src/a.js')", "require('tlspool')", "import {\n  a,\n  b,\n} from 'tlspool';"];
    for (const text of forms) assert.equal(breaches('libtlspool/src', { file: 'libtlspool/src/x.ts', text }).length, 1, text);
    for (const text of ["import x from './y.js';", "import { sockets } from 'libtlspool/native';", "import net from 'node:net';", "import { Log } from 'tlspool-common/log';"]) {
      for (const room of ['daemon/src', 'proxy/src']) assert.deepEqual(breaches(room, { file: `${room}/x.ts`, text }), [], text);
    }
    for (const text of ["import { Log } from 'tlspool-common/log';", "import { x } from 'tlspool';", "import { x } from 'tlspool-proxy';"]) {
      assert.equal(breaches(text.includes('common') ? 'libtlspool/src' : 'common/src', { file: 'x/src/y.ts', text }).length, 1, text);
    }
    assert.equal(breaches('daemon/src', { file: 'daemon/src/x.ts', text: "import { x } from 'libtlspool/dist/link.js';" }).length, 1);
  });

  for (const room of Object.keys(walls)) {
    it(`package.json names the packages that are imported, and no others: ${room}`, () => {
      const folder = path.dirname(room);
      const { dependencies } = JSON.parse(readFileSync(path.join(root, folder, 'package.json'), 'utf8')) as { dependencies: Record<string, string> };
      // Unlike importsOf(), only what is surely an import: this list has to be exact.
      const used = typescript(room).flatMap(({ text }) => [...text.matchAll(/^(?:import|export) (?:[^;]*? from )?'([^'.][^']*)';$/gmu)].map(([, from = '']) => from)).filter((from) => !from.startsWith('node:'))
        .map((from) => from.split('/').slice(0, from.startsWith('@') ? 2 : 1).join('/'));
      // By the install script, and by require().
      if (existsSync(path.join(root, folder, 'binding.gyp'))) used.push('node-gyp-build');
      assert.deepEqual([...new Set(used)].sort(), Object.keys(dependencies).sort());
    });
  }

  it(`no file is longer than ${String(maxLines)} lines without a reason at its top`, () => {
    const long = [...typescript('libtlspool/src', 'common/src', 'daemon/src', 'proxy/src', 'test'), ...native(), ...sources('scripts', /\.m?js$/u)]
      .filter(({ text }) => text.split('\n').length - 1 > maxLines && !/\blong (?:file|because)\b/iu.test(text.split('\n').slice(0, 12).join('\n')));
    assert.deepEqual(long.map(({ file, text }) => `${file} has ${String(text.split('\n').length - 1)} lines; split it, or begin it with "Long because ..."`), []);
  });

  it('no test is skipped or run alone', () => {
    const narrow = /\b(?:it|describe|context|specify|suite|test)\s*\.\s*(?:only|skip)\b|\bx(?:it|describe|context|specify)\s*\(|\bthis\.skip\s*\(/u;
    for (const text of ['it.only(', 'describe.skip (', 'this.skip()', 'xit (']) assert.match(text, narrow);
    const own = 'test/unit/house-rules.test.ts';
    assert.deepEqual(typescript('test').filter(({ file, text }) => file !== own && narrow.test(text)).map(({ file }) => file), []);
  });

  it('no test file is left out because of its name or place', () => {
    const groups = ['unit', 'contract', 'system', 'interop', 'fuzz', 'native'];
    const lost = typescript('test').filter(({ text }) => /^describe\(/mu.test(text))
      .filter(({ file }) => !file.endsWith('.test.ts') || !groups.includes(file.split('/')[1] ?? ''));
    assert.deepEqual(lost.map(({ file }) => file), []);
  });

  it('native code opens and receives every descriptor CLOEXEC', () => {
    assert.deepEqual(native().flatMap(openWithoutCloexec), []);
  });

  it('the check of CLOEXEC sees what it must refuse, and accepts what is right', () => {
    for (const text of ['::recvmsg(fd, &m, 0)', '::recvmsg(fd, &m, f(1) | MSG_DONTWAIT)', '::socket(AF_UNIX, SOCK_STREAM, 0)', 'accept4(fd, a, b, 0)', '::accept(fd, a, b)', '::dup(3)',
      'fcntl(fd, F_DUPFD, 0)', 'epoll_create1(0)', 'eventfd(0, EFD_NONBLOCK)', '::open("/x", O_RDONLY)', '::socket(a, b /* SOCK_CLOEXEC */, c)', 'x.reset(socket(AF_UNIX, 1, 0))']) {
      assert.equal(openWithoutCloexec({ file: 'x.cc', text }).length, 1, text);
    }
    for (const text of ['recvmsg(fd, &m, MSG_CMSG_CLOEXEC | MSG_DONTWAIT)', 'fcntl(fd, F_DUPFD_CLOEXEC, 0)', '::socket(AF_UNIX, type | SOCK_CLOEXEC, 0)', '// ::accept(fd) is wrong']) {
      assert.deepEqual(openWithoutCloexec({ file: 'x.cc', text }), [], text);
    }
  });

  it('native code has no raw new or delete, and asserts nothing', () => {
    // `new` is given to an owner on the spot; `delete` is for what Node-API's finalizers get back as void*.
    const raw = /\bdelete\s+(?!static_cast<\w+\*>\(data\))(?:\[\]\s*)?\w|(?<!_ptr<[^;]*\(|reset\()\bnew\s+\w|\b(?:malloc|calloc|realloc)\s*\(|\b(?<!static_)assert\s*\(|\babort\s*\(/u;
    assert.deepEqual(native().flatMap(({ file, text }) => {
      const match = raw.exec(bare(text));
      return match === null ? [] : [`${file}: ${match[0]}`];
    }), []);
  });
});
