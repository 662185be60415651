/**
 * The vocabulary in which messages are described. A `Shape` is data: the type of the decoded value, the check
 * that decoding runs, the table in docs/protocol.md and the generator of the fuzz tests are all derived from it.
 */

/** Unsigned integer from 0 up to and including `max`. */
export interface UintShape { readonly kind: 'uint'; readonly max: number }
/** UTF-8 text of at most `maxOctets` octets. */
export interface TextShape { readonly kind: 'text'; readonly maxOctets: number }
/** Binary string. `secret` values are masked in traces. */
export interface BinShape { readonly kind: 'bin'; readonly minOctets: number; readonly maxOctets: number; readonly secret: boolean }
export interface BoolShape { readonly kind: 'bool' }
/** One of a fixed set of words. */
export interface WordShape<W extends string = string> { readonly kind: 'word'; readonly words: readonly W[] }
export interface ListShape<S extends Shape = Shape> { readonly kind: 'list'; readonly of: S; readonly maxItems: number }
export interface MapShape<F extends Fields = Fields> { readonly kind: 'map'; readonly fields: F }
/** A field that may be absent. Absent and nil are different: nil is never accepted. */
export interface OptionalShape<S extends Shape = Shape> { readonly kind: 'optional'; readonly of: S }

export type Shape = UintShape | TextShape | BinShape | BoolShape | WordShape | ListShape<any> | MapShape<any> | OptionalShape<any>; // eslint-disable-line @typescript-eslint/no-explicit-any -- a recursive union of generics needs it
export type Fields = Readonly<Record<string, Shape>>;

type RequiredKeys<F extends Fields> = { [K in keyof F]: F[K] extends OptionalShape ? never : K }[keyof F];
type OptionalKeys<F extends Fields> = { [K in keyof F]: F[K] extends OptionalShape ? K : never }[keyof F];
type Flatten<T> = { [K in keyof T]: T[K] };

/** The TypeScript type of a value that has the shape `S`. */
export type ValueOf<S extends Shape> =
  S extends UintShape ? number :
  S extends TextShape ? string :
  S extends BinShape ? Uint8Array :
  S extends BoolShape ? boolean :
  S extends WordShape<infer W> ? W :
  S extends OptionalShape<infer O> ? ValueOf<O> :
  S extends ListShape<infer I> ? readonly ValueOf<I>[] :
  S extends MapShape<infer F> ? Flatten<
    { readonly [K in RequiredKeys<F>]: ValueOf<F[K]> } & { readonly [K in OptionalKeys<F>]?: ValueOf<F[K]> }
  > : never;

export const uint = (max = 0xffff_ffff): UintShape => ({ kind: 'uint', max });
export const text = (maxOctets: number): TextShape => ({ kind: 'text', maxOctets });
export const bin = (maxOctets: number, minOctets = 0): BinShape => ({ kind: 'bin', minOctets, maxOctets, secret: false });
export const secret = (maxOctets: number, minOctets = 0): BinShape => ({ kind: 'bin', minOctets, maxOctets, secret: true });
export const bool = (): BoolShape => ({ kind: 'bool' });
export const word = <const W extends string>(...words: readonly W[]): WordShape<W> => ({ kind: 'word', words });
export const list = <S extends Shape>(of: S, maxItems: number): ListShape<S> => ({ kind: 'list', of, maxItems });
export const map = <F extends Fields>(fields: F): MapShape<F> => ({ kind: 'map', fields });
export const optional = <S extends Shape>(of: S): OptionalShape<S> => ({ kind: 'optional', of });
