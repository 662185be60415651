/** `tlspool pki`: a development CA and identities signed by it. Works on files; needs no pool. */
import path from 'node:path';
import { Option, InvalidArgumentError } from 'commander';
import type { Command } from 'commander';
import { TlsPoolError } from 'libtlspool/protocol';
import { localid } from 'tlspool-common/config';
import { initCa, issue, maxLeafDays } from '../pki/index.js';
import type { KeyType } from '../pki/index.js';
import type { Shown } from './commands.js';
import { list, moment } from './format.js';

interface IssueOptions {
  readonly ca: string; readonly out?: string; readonly dns: string[]; readonly ip: string[]; readonly uri: string[]; readonly email: string[];
  readonly keyType: KeyType; readonly client?: boolean; readonly server?: boolean; readonly days: number; readonly pair: string;
}

const collect = (value: string, values: string[]): string[] => [...values, value];

export function addPkiCommands(program: Command, show: (shown: Shown) => void): void {
  const pki = program.command('pki').description('certificates for development and tests');
  addInit(pki, show);
  addIssue(pki, show);
}

function addInit(pki: Command, show: (shown: Shown) => void): void {
  pki.command('init').description('make a certificate authority, or find the one that is there')
    .option('--ca <folder>', 'folder of the authority', 'ca')
    .option('--name <text>', 'its common name')
    .action(async ({ ca, name }: { ca: string; name?: string }) => {
      const { certificateFile, created } = await initCa(ca, name === undefined ? {} : { name });
      show({ value: { certificateFile, created }, text: list([['authority', created ? 'made' : 'was there already'], ['certificate', certificateFile]]) });
    });
}

function addIssue(pki: Command, show: (shown: Shown) => void): void {
  pki.command('issue').description('make a key and a certificate, in the folder layout that the pool reads')
    .argument('<name>', 'common name; also the DNS name or address when no other is given')
    .option('--ca <folder>', 'folder of the authority', 'ca')
    .option('--out <folder>', 'where to write tls.crt, tls.key and ca.crt (default: identities/<name>)')
    .option('--dns <name>', 'DNS name, may be repeated', collect, [])
    .option('--ip <address>', 'IP address, may be repeated', collect, [])
    .option('--uri <uri>', 'URI such as a SPIFFE ID, may be repeated', collect, [])
    .option('--email <address>', 'e-mail address, may be repeated', collect, [])
    .addOption(new Option('--key-type <type>', 'ECDSA P-256 or RSA 2048').choices(['ecdsa', 'rsa']).default('ecdsa'))
    .option('--pair <name>', 'base name of the pair; a second one, such as tls-rsa, gives the identity a second key type', 'tls')
    .option('--client', 'for TLS clients')
    .option('--server', 'for TLS servers (the default; with --client: for both)')
    .option('--days <days>', `lifetime, 1 to ${maxLeafDays}`, parseDays, maxLeafDays)
    .action(async (name: string, options: IssueOptions) => {
      const { ca, keyType, days, pair, client, server } = options;
      const out = options.out ?? folderFor(name);
      const issued = await issue(ca, { name, ...namesOf(options), keyType, days, pair, out, ...(client !== undefined && { client }), ...(server !== undefined && { server }) });
      show({
        value: { ...issued, notAfter: issued.notAfter.toISOString() },
        text: list([['certificate', issued.certificateFile], ['key', issued.keyFile], ['trust', issued.trustFile], ['valid until', moment(issued.notAfter.getTime())]]),
      });
    });
}

/** Where identities are looked for by their names; a name that cannot be one says where else. */
function folderFor(name: string): string {
  if (localid.safeParse(name).success) return path.join('identities', name);
  throw new TlsPoolError('BAD_ARGUMENT', { field: 'name', text: `name: ${JSON.stringify(name.slice(0, 255))} cannot be the name of a folder; say where to write with --out` });
}

function namesOf({ dns, ip, uri, email }: IssueOptions): Partial<Pick<IssueOptions, 'dns' | 'ip' | 'uri' | 'email'>> {
  return { ...(dns.length > 0 && { dns }), ...(ip.length > 0 && { ip }), ...(uri.length > 0 && { uri }), ...(email.length > 0 && { email }) };
}

function parseDays(text: string): number {
  const days = Number(text);
  if (!Number.isInteger(days) || days < 1 || days > maxLeafDays) throw new InvalidArgumentError(`It must be a whole number from 1 to ${maxLeafDays}.`);
  return days;
}
