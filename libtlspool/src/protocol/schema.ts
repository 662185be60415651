/**
 * The vocabulary in which messages are described. A `Shape` is data: the type of the decoded value, the check
 * that decoding runs, the table in docs/protocol.md and the generator of the fuzz tests are all derived from it.
 */

/** Unsigned integer from 0 up to and including `max`. */
export interface UintShape {
  /** Tells the shapes apart. */
  readonly kind: 'uint';
  /** Largest value, at most 2^53 - 1. */
  readonly max: number;
}
/** UTF-8 text of at most `maxOctets` octets. */
export interface TextShape {
  /** Tells the shapes apart. */
  readonly kind: 'text';
  /** Octets of the UTF-8 form, not characters. */
  readonly maxOctets: number;
}
/** Binary string. `secret` values are masked in traces. */
export interface BinShape {
  /** Tells the shapes apart. */
  readonly kind: 'bin';
  /** Fewest octets. */
  readonly minOctets: number;
  /** Most octets. */
  readonly maxOctets: number;
  /** Masked in traces. */
  readonly secret: boolean;
}
/** true or false. */
export interface BoolShape {
  /** Tells the shapes apart. */
  readonly kind: 'bool';
}
/** One of a fixed set of words. */
export interface WordShape<W extends string = string> {
  /** Tells the shapes apart. */
  readonly kind: 'word';
  /** All words that are accepted. */
  readonly words: readonly W[];
}
/** Items of one shape. */
export interface ListShape<S extends Shape = Shape> {
  /** Tells the shapes apart. */
  readonly kind: 'list';
  /** Shape of each item. */
  readonly of: S;
  /** Most items. */
  readonly maxItems: number;
}
/** Named fields; a field that is not among them is an error. */
export interface MapShape<F extends Fields = Fields> {
  /** Tells the shapes apart. */
  readonly kind: 'map';
  /** Name -> shape. */
  readonly fields: F;
}
/** A field that may be absent. Absent and nil are different: nil is never accepted. */
export interface OptionalShape<S extends Shape = Shape> {
  /** Tells the shapes apart. */
  readonly kind: 'optional';
  /** Shape of the value when it is there. */
  readonly of: S;
}

/** What a value may look like. */
export type Shape = UintShape | TextShape | BinShape | BoolShape | WordShape | ListShape<any> | MapShape<any> | OptionalShape<any>; // eslint-disable-line @typescript-eslint/no-explicit-any -- a recursive union of generics needs it
/** Field name -> shape. */
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

/** A UintShape; `max` is 2^32 - 1 unless given. */
export const uint = (max = 0xffff_ffff): UintShape => ({ kind: 'uint', max });
/** A TextShape. */
export const text = (maxOctets: number): TextShape => ({ kind: 'text', maxOctets });
/** A BinShape. */
export const bin = (maxOctets: number, minOctets = 0): BinShape => ({ kind: 'bin', minOctets, maxOctets, secret: false });
/** A BinShape that traces mask. */
export const secret = (maxOctets: number, minOctets = 0): BinShape => ({ kind: 'bin', minOctets, maxOctets, secret: true });
/** A BoolShape. */
export const bool = (): BoolShape => ({ kind: 'bool' });
/** A WordShape. */
export const word = <const W extends string>(...words: readonly W[]): WordShape<W> => ({ kind: 'word', words });
/** A ListShape. */
export const list = <S extends Shape>(of: S, maxItems: number): ListShape<S> => ({ kind: 'list', of, maxItems });
/** A MapShape. */
export const map = <F extends Fields>(fields: F): MapShape<F> => ({ kind: 'map', fields });
/** An OptionalShape. */
export const optional = <S extends Shape>(of: S): OptionalShape<S> => ({ kind: 'optional', of });
