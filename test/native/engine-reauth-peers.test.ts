/** The other end is not ours: the openssl command, Node's own TLS, GnuTLS. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import type tls from 'node:tls';
import type { ContextSpec } from 'tlspool/dist/engine.js';
import { sockets } from 'libtlspool/native';
import { BulkReader, BulkWriter } from '../support/bulk.js';
import { countDescriptors } from '../support/native-fds.js';
import { needProgram, Program } from '../support/program.js';
import { until } from '../support/wait.js';
import { application, connectTls, readSome } from './engine-support.js';
import type { EventOf } from './engine-support.js';
import { leafOf, useReauthRig } from './engine-reauth-support.js';
import type { Outcome, Version } from './engine-reauth-support.js';

/** SSL_OP_NO_EXTENDED_MASTER_SECRET and SSL_OP_NO_TICKET, which Node does not name. */
const noExtendedMasterSecret = 1;

describe('engine: reauthentication with peers that are not ours', () => {
  countDescriptors();

  describe('as', () => {
    const { rig, certificates } = useReauthRig();
    let folder = '';
    const programs: Program[] = [];
    const file = (name: string): string => path.join(folder, name);

    before(() => {
      folder = mkdtempSync(path.join(os.tmpdir(), 'tlspool-reauth-'));
      writeFileSync(file('ca.crt'), certificates().ca);
      for (const name of ['client', 'server'] as const) {
        writeFileSync(file(`${name}.crt`), certificates()[name].chain);
        writeFileSync(file(`${name}.key`), certificates()[name].key);
      }
    });
    after(() => { rmSync(folder, { recursive: true }); });
    afterEach(async () => {
      for (const program of programs.splice(0)) {
        program.kill('SIGKILL');
        await program.ended;
      }
    });

    const run = (command: string, debianPackage: string, ...args: string[]): Program => {
      const program = new Program(needProgram(command, debianPackage), args);
      programs.push(program);
      return program;
    };
    const seen = (program: Program, what: RegExp): Promise<true> =>
      until(() => what.test(program.stdout + program.stderr), { what: what.source, context: () => program.stdout + program.stderr });
    const own = (fd: number): net.Socket => rig().own(application(fd));
    const withCertificate = { cert: (): Buffer => certificates().client.chain, key: (): Buffer => certificates().client.key };
    const shown = ['-cert', 'client.crt', '-key', 'client.key'];

    /** A session with `openssl s_client`. */
    async function dialled(args: readonly string[], server: Partial<ContextSpec> = {}): Promise<{ program: Program; event: EventOf<'established'>; plain: net.Socket; port: number }> {
      const { port } = rig().listen(rig().selector(rig().context(server)));
      const words = args.map((word) => (/\.(crt|key|sess)$/u.test(word) ? file(word) : word));
      const program = run('openssl', 'openssl', 's_client', '-connect', `127.0.0.1:${String(port)}`, '-servername', 'server.test', '-CAfile', file('ca.crt'), ...words);
      const event = await rig().event('established');
      return { program, event, plain: own(event.plainfd), port };
    }

    async function exchange(program: Program, plain: net.Socket): Promise<void> {
      program.write('question\n');
      assert.equal((await readSome(plain, 9)).toString(), 'question\n');
      plain.write('the answer\n');
      await seen(program, /the answer/u);
    }

    describe('client: openssl s_client', () => {
      for (const version of ['-tls1_3', '-tls1_2']) {
        it(`${version}: is authenticated by its certificate, and both ends go on`, async () => {
          const { program, event, plain } = await dialled([version, '-enable_pha', '-quiet', ...shown]);
          const outcome = await rig().reauthenticate(event.session, { require: true });
          assert.ok(outcome.kind === 'reauthenticated');
          assert.deepEqual([outcome.outcome, outcome.peerCertificates[0]], ['authenticated', leafOf(certificates().client)]);
          await exchange(program, plain);
          for (let i = 0; i < 5; ++i) assert.equal(await rig().refusal(event.session), 'authenticated');
          await exchange(program, plain);
        });

        it(`${version}: without a certificate it is refused and both ends go on, or with require it is told`, async () => {
          const { program, event, plain } = await dialled([version, '-enable_pha', '-quiet']);
          assert.equal(await rig().refusal(event.session), 'refused');
          await exchange(program, plain);
          assert.equal(await rig().refusal(event.session, { require: true }), 'REAUTH_REFUSED');
          await seen(program, version === '-tls1_3' ? /alert certificate required/u : /alert handshake failure/u);
        });

        it(`${version}: no ticket carries the identity that was shown later`, async () => {
          const { program, event, plain, port } = await dialled([version, '-enable_pha', '-sess_out', 'first.sess', ...shown]);
          plain.write('with it comes the ticket\n');
          await seen(program, /comes the ticket/u);
          assert.equal(await rig().refusal(event.session), 'authenticated');
          await exchange(program, plain);
          program.write('Q\n');
          await program.ended;
          // There is one all the same, of the time before.
          run('openssl', 'openssl', 's_client', '-connect', `127.0.0.1:${String(port)}`, '-servername', 'server.test', '-CAfile', file('ca.crt'), version, '-sess_in', file('first.sess'), '-quiet');
          const again = await rig().event('established');
          own(again.plainfd);
          assert.deepEqual([again.resumed, again.authorized, again.peerCertificates.length], [true, false, 0]);
        });
      }

      it('a session that was resumed can be reauthenticated as any other', async () => {
        for (const version of ['-tls1_3', '-tls1_2']) {
          const first = await dialled([version, '-sess_out', 'first.sess'], { keyPairs: [certificates().server, certificates().rsa] });
          first.plain.write('with it comes the ticket\n');
          await seen(first.program, /comes the ticket/u);
          first.program.write('Q\n');
          await first.program.ended;
          const again = run('openssl', 'openssl', 's_client', '-connect', `127.0.0.1:${String(first.port)}`, '-servername', 'server.test', '-CAfile', file('ca.crt'), version,
            '-enable_pha', '-sess_in', file('first.sess'), '-quiet', '-cert', file('client.crt'), '-key', file('client.key'));
          const event = await rig().event('established');
          assert.equal(event.resumed, true);
          const plain = own(event.plainfd);
          for (let i = 0; i < 2; ++i) assert.equal(await rig().refusal(event.session, { require: true }), 'authenticated');
          await exchange(again, plain);
        }
      });

      it('TLS 1.3 without post_handshake_auth is REAUTH_UNAVAILABLE, and both ends go on', async () => {
        const { program, event, plain } = await dialled(['-tls1_3', '-quiet', ...shown]);
        const outcome = await rig().reauthenticate(event.session, { require: true });
        assert.ok(outcome.kind === 'answer');
        assert.deepEqual([outcome.code, outcome.text], ['REAUTH_UNAVAILABLE', 'the client did not offer post-handshake authentication (RFC 8446 section 4.2.6)']);
        await exchange(program, plain);
      });

      it('gets the list of authorities of the context that decides', async () => {
        const { program, event, plain } = await dialled(['-tls1_3', '-enable_pha', '-trace']);
        await rig().reauthenticate(event.session);
        await exchange(program, plain);
        await rig().reauthenticate(event.session, { context: rig().strangers() });
        // What it prints waits in a buffer until it ends.
        program.write('Q\n');
        await program.ended;
        const lists = program.stdout.split('CertificateRequest, Length').slice(1).map((part) => {
          const dump = part.slice(part.indexOf('certificate_authorities'), part.indexOf('Sent Record'));
          return [...dump.matchAll(/^ +[0-9a-f]{4} - ((?:[0-9a-f]{2}[ -])+)/gmu)].map(([, octets = '']) => octets.replaceAll(/[ -]/gu, '')).join('');
        });
        assert.equal(lists.length, 2);
        // CN=ca, and CN=other.
        assert.match(lists[0] ?? '', /5504030c026361$/u);
        assert.match(lists[1] ?? '', /5504030c056f74686572$/u);
      });

      for (const when of ['before', 'after'] as const) {
        it(`a renegotiation that it begins ${when} one of ours is refused by no_renegotiation`, async () => {
          const { program, event } = await dialled(['-tls1_2', '-msg', ...shown]);
          if (when === 'after') assert.equal(await rig().refusal(event.session), 'authenticated');
          program.write('R\n');
          await seen(program, /<<< TLS 1\.2, Alert \[length 0002\], warning no_renegotiation/u);
          assert.equal(rig().events.some(({ kind }) => kind === 'hello' || kind === 'reauthenticated'), false);
        });
      }

      it('a client that refuses to renegotiate ends its session, which OpenSSL cannot continue', async () => {
        for (const require of [false, true]) {
          const { event } = await dialled(['-tls1_2', '-no_renegotiation', ...shown]);
          const outcome = await rig().reauthenticate(event.session, { require });
          assert.ok(outcome.kind === 'answer');
          assert.deepEqual([outcome.code, outcome.text], ['REAUTH_REFUSED', 'the client refused to renegotiate (no_renegotiation), and the session cannot go on after that']);
          assert.equal((await rig().closed(event.session)).how, 'error');
        }
      });
    });

    describe("client: Node's TLS", () => {
      async function called(options: tls.ConnectionOptions = {}, version: Version = 'TLSv1.2'): Promise<{ client: tls.TLSSocket; event: EventOf<'established'>; plain: net.Socket }> {
        const { port } = rig().listen(rig().selector(), { alpn: ['h2', 'x/1'] });
        const raw = rig().own(net.connect({ port, host: '127.0.0.1' }));
        const client = await connectTls(port, certificates().ca, { socket: raw, maxVersion: version, ALPNProtocols: ['x/1'], cert: withCertificate.cert(), key: withCertificate.key(), ...options });
        client.on('error', () => undefined);
        rig().own(client);
        const event = await rig().event('established');
        return { client, event, plain: own(event.plainfd) };
      }

      it('answers a HelloRequest on TLS 1.2, and has the same channel bindings as the server before and after', async () => {
        const { client, event, plain } = await called();
        assert.deepEqual([event.alpn, event.servername, client.alpnProtocol], ['x/1', 'server.test', 'x/1']);
        const before = { ours: await rig().bindings(event.session), theirs: client.getFinished()?.toString('hex') };
        assert.equal(before.ours.tlsUnique?.toString('hex'), before.theirs);
        const outcome = await rig().reauthenticate(event.session);
        assert.ok(outcome.kind === 'reauthenticated');
        assert.deepEqual([outcome.outcome, outcome.peerCertificates[0]], ['authenticated', leafOf(certificates().client)]);
        plain.write('answer');
        assert.equal((await readSome(client, 6)).toString(), 'answer');
        assert.deepEqual(client.getPeerCertificate().raw, leafOf(certificates().server));
        // tls-unique is that of the latest handshake (RFC 5929 section 3.1): another one than before, the same at both ends.
        const after = await rig().bindings(event.session);
        assert.equal(after.tlsUnique?.toString('hex'), client.getFinished()?.toString('hex'));
        assert.notEqual(client.getFinished()?.toString('hex'), before.theirs);
        assert.equal(await rig().exported(event.session), (client.exportKeyingMaterial as (length: number, label: string) => Buffer).call(client, 32, 'EXPERIMENTAL-test').toString('hex'));
      });

      it('what flows both ways under twenty renegotiations arrives whole and in order', async function () {
        this.timeout(60_000);
        const { client, event, plain } = await called();
        const [octets, holdEvery] = [42 * 1024 * 1024, 2 * 1024 * 1024];
        const readers = [new BulkReader(client), new BulkReader(plain)];
        const writers = [new BulkWriter(plain, octets, { holdEvery }), new BulkWriter(client, octets, { holdEvery })];
        let underLoad = 0;
        for (let i = 0; i < 20; ++i) {
          if (readers.every((reader, end) => reader.state().octets < (writers[end]?.state().octets ?? 0))) ++underLoad;
          const outcome = await rig().reauthenticate(event.session, { require: true });
          assert.equal(outcome.kind === 'answer' ? outcome.text : outcome.outcome, 'authenticated', `number ${String(i)}`);
          for (const writer of writers) writer.resume();
        }
        await until(() => {
          for (const writer of writers) writer.resume();
          return writers.every((writer) => writer.state().sha256 !== undefined);
        }, { what: 'all to be written', deadlineMs: 30_000 });
        await rig().closed(event.session);
        await until(() => readers[0]?.state().sha256 !== undefined, { what: 'the end of what the client reads' });
        const ends = [...readers, ...writers].map((end) => end.state());
        assert.deepEqual(ends.map((end) => end.octets), [octets, octets, octets, octets]);
        assert.deepEqual([ends[0]?.sha256, ends[1]?.sha256], [ends[2]?.sha256, ends[3]?.sha256]);
        assert.ok(underLoad >= 15, `only ${String(underLoad)} of 20 began while octets were on their way both ways`);
      });

      it('without the extended master secret it is REAUTH_UNAVAILABLE, and both ends go on', async () => {
        const { client, event, plain } = await called({ secureOptions: noExtendedMasterSecret });
        const outcome = await rig().reauthenticate(event.session);
        assert.ok(outcome.kind === 'answer');
        assert.equal(outcome.code, 'REAUTH_UNAVAILABLE');
        assert.match(outcome.text, /extended master secret/u);
        plain.write('answer');
        assert.equal((await readSome(client, 6)).toString(), 'answer');
      });
    });

    it('client: gnutls-cli without secure renegotiation is REAUTH_UNAVAILABLE, and with it is asked', async () => {
      const outcomes: Outcome[] = [];
      for (const flag of [':%DISABLE_SAFE_RENEGOTIATION', '']) {
        const { port } = rig().listen(rig().selector());
        run('gnutls-cli', 'gnutls-bin', '--port', String(port), '--x509cafile', file('ca.crt'), '--sni-hostname', 'server.test', '--verify-hostname', 'server.test', '--logfile', file('gnutls.log'),
          '--priority', `NORMAL:-VERS-ALL:+VERS-TLS1.2${flag}`, '127.0.0.1');
        const event = await rig().event('established');
        own(event.plainfd);
        outcomes.push(await rig().reauthenticate(event.session));
      }
      const [without, having] = outcomes;
      assert.ok(without?.kind === 'answer');
      assert.equal(without.code, 'REAUTH_UNAVAILABLE');
      assert.match(without.text, /RFC 5746/u);
      assert.ok(having?.kind === 'reauthenticated');
      assert.equal(having.outcome, 'refused');
    });

    describe('server: openssl s_server', () => {
      /** The engine as its client. */
      async function served(args: readonly string[], shows = true): Promise<{ program: Program; session: number; plain: net.Socket }> {
        const program = run('openssl', 'openssl', 's_server', '-accept', '127.0.0.1:0', '-naccept', '1', '-cert', file('server.crt'), '-key', file('server.key'), '-CAfile', file('ca.crt'), ...args);
        await seen(program, /ACCEPT 127\.0\.0\.1:\d+/u);
        const port = Number(/ACCEPT 127\.0\.0\.1:(\d+)/u.exec(program.stdout)?.[1]);
        const socket = net.connect({ port, host: '127.0.0.1' });
        await new Promise((resolve) => socket.once('connect', resolve));
        const fd = sockets.dup((socket as unknown as { _handle: { fd: number } })._handle.fd as never);
        socket.destroy();
        const context = rig().context({ localid: 'client', keyPairs: shows ? [certificates().client] : [] });
        const session = rig().engine.startTls(fd, -1, { role: 'client', context, remoteid: 'server.test', servername: 'server.test' });
        const event = await rig().event('established');
        assert.equal(event.session, session);
        return { program, session, plain: own(event.plainfd) };
      }

      // On TLS 1.2 it asks for a certificate once, and for a renegotiation as often as it is told to.
      for (const [version, command] of [['-tls1_3', 'c'], ['-tls1_2', 'R']] as const) {
        it(`${version}: its requests are answered, time and again, and both ends go on`, async () => {
          const { program, plain } = await served([version, '-msg']);
          for (let i = 1; i <= 3; ++i) {
            plain.write(`question ${String(i)}\n`);
            await seen(program, new RegExp(`question ${String(i)}\n`, 'u'));
            program.write(`${command}\n`);
            await seen(program, version === '-tls1_3' ? new RegExp(`(?:CN = client\\n[^]*){${String(i)}}`, 'u') : new RegExp(`(?:>>> [^\\n]* HelloRequest[^]*<<< [^\\n]* Finished[^]*){${String(i)}}`, 'u'));
            program.write(`answer ${String(i)}\n`);
            assert.equal((await readSome(plain, 9)).toString(), `answer ${String(i)}\n`);
          }
          assert.match(program.stderr, /CN = client/u);
          assert.doesNotMatch(program.stdout + program.stderr, /error|Alert/u);
        });

        it(`${version}: without a key pair an empty Certificate answers it, and both ends go on`, async () => {
          const { program, plain } = await served([version, '-msg'], false);
          program.write(`${command}\n`);
          await seen(program, /<<< TLS 1\.[23], Handshake \[length 00(?:28|07)\], Certificate\n/u);
          program.write('answer\n');
          assert.equal((await readSome(plain, 7)).toString(), 'answer\n');
        });
      }

      it('-tls1_2: a HelloRequest that asks for no certificate is answered, too', async () => {
        const { program, plain } = await served(['-tls1_2', '-msg']);
        program.write('r\n');
        await seen(program, /HelloRequest[^]*ClientHello[^]*Finished[^]*Finished/u);
        program.write('answer\n');
        assert.equal((await readSome(plain, 7)).toString(), 'answer\n');
      });
    });
  });
});
