/** A backend whose proxies keep it waiting goes on living. */
import assert from 'node:assert/strict';
import path from 'node:path';
import process from 'node:process';
import { Program, tempFolder } from '../support/index.js';
import { RawProxy } from '../support/handoff-wire.js';

/** Says when it has no room, and when it would end by itself. */
const backend = `
import { listenForHandoff } from 'libtlspool';
process.once('beforeExit', () => console.log('nothing to do'));
const listener = await listenForHandoff({ path: process.argv[1], highWaterMark: 1 });
listener.on('refused', (error) => console.log('refused', error.code));
console.log('ready');
setTimeout(() => console.log('waiting'), 300);
for await (const socket of listener) socket.end();
`;

describe('libtlspool: a hand-off socket without room', () => {
  it('keeps its process alive, and accepts again when a proxy has left', async () => {
    const file = path.join(tempFolder(), 'h.sock');
    const program = new Program(process.execPath, ['--input-type=module', '-e', backend, file]);
    await program.output(/ready/u);
    // Two that hand nothing over: one is accepted, the other waits in the kernel.
    const [first, second] = [RawProxy.to(file), RawProxy.to(file)];
    await program.output(/waiting/u);
    first.sendRaw(Buffer.from('no message'));
    await program.output(/refused POOL_LOST/u);
    second.sendRaw(Buffer.from('nor this'));
    await program.output(/refused[^]*refused/u);
    assert(!program.stdout.includes('nothing to do'), program.stdout);
    for (const proxy of [first, second]) proxy.close();
    program.kill();
    await program.ended;
  });
});
