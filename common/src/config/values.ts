/** Values that several configurations have: how they are written, and what is said of them when they are wrong. */
import { z } from 'zod';
import { lookupAccount, lookupId, type Account, type Database } from './accounts.js';
import { normalizeHostName } from './hostname.js';

/** A value with a meaning: `parse` gives undefined for what is not `allowed`, which completes the sentence "… is not …". */
export function parsedBy<Value>(parse: (value: unknown) => Value | undefined, allowed: string | ((value: unknown) => string)): z.ZodType<Value, unknown> {
  return z.unknown().transform((value, context) => {
    const parsed = parse(value);
    if (parsed !== undefined) return parsed;
    context.issues.push({ code: 'custom', input: value, message: typeof allowed === 'string' ? allowed : allowed(value) });
    return z.NEVER;
  });
}

const isNameOrNumber = (value: unknown): value is string | number => typeof value === 'string' || typeof value === 'number';

/** The number of a user or group, given by name or number. */
export const account = (database: Database, noun: string): z.ZodType<number, unknown> =>
  parsedBy((value) => (isNameOrNumber(value) ? lookupId(database, value) : undefined), `a ${noun} that exists on this host, or its number (0 to 4294967294)`);

/** A user to run as, by name or number. */
export const runAs: z.ZodType<Account, unknown> = parsedBy((value) => (isNameOrNumber(value) ? lookupAccount(String(value)) : undefined), 'a user that exists on this host');

/** One value or a list. */
export const oneOrMore = <S extends z.ZodType>(of: S, most = 64) => z.preprocess((value) => (value === undefined || Array.isArray(value) ? value : [value]), z.array(of).min(1).max(most));

/** A whole number in a range, both ends included. */
export const int = (min: number, max: number): z.ZodInt => z.int().min(min).max(max);

/** A path. */
export const file = z.string().min(1).max(4096).regex(/^[^\0]*$/, { error: 'a path without NUL octets' });

/** Permissions of a socket. Its key has to be among those whose spelling is kept (ConfigFormat.spelled). */
export const socketMode: z.ZodType<number, unknown> = parsedBy((value) => {
  const mode = typeof value === 'string' && /^(0o?)?[0-7]{3}$/.test(value) ? Number.parseInt(value.slice(-3), 8) : 0;
  return (mode & 0o600) === 0o600 ? mode : undefined;
}, 'octal permissions from 0600 to 0777 that let the owner read and write, such as 0660');

/** A DNS name in the form of SNI; `*.example.org` stands for one label. */
export const hostName = z.string().transform((value, context) => {
  const name = normalizeHostName(value);
  if (name !== undefined) return name;
  context.issues.push({ code: 'custom', input: value, message: 'a host name, optionally with a leading "*." for one label' });
  return z.NEVER;
});

/** Name of an identity: 1 to 255 octets, no control characters, no slash, no leading dot, so that it can be a folder's name, too. */
export const localid = z.string().min(1).regex(/^[^./\p{Cc}][^/\p{Cc}]*$/u, { error: 'a name without slashes and control characters that does not begin with a dot' })
  .refine((value) => Buffer.byteLength(value) <= 255, { error: 'a name of at most 255 octets' });
