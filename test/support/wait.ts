/** Waiting without sleeping: for an event where there is one, else for a condition, always with a deadline. */
import { AssertionError } from 'node:assert';
import type { EventEmitter } from 'node:events';

/** Deadline of a wait in milliseconds, where the caller names none: far above what anything takes, so that reaching it is a defect. */
export const defaultDeadlineMs = 10_000;

/** How often a condition is looked at, where the kernel offers no event for it. */
const pollMs = 10;

export interface UntilOptions {
  /** Completes the sentence "waited N ms for ...". */
  readonly what: string;
  readonly deadlineMs?: number;
  /** Added to the error when the deadline passes. */
  readonly context?: () => string;
}

const timeOut = (what: string, deadlineMs: number, context = ''): AssertionError =>
  new AssertionError({ message: `waited ${String(deadlineMs)} ms for ${what}${context === '' ? '' : `\n${context}`}` });

/** The promise's own outcome, or an AssertionError when it has none within the deadline. */
export async function within<T>(promise: Promise<T>, what: string, deadlineMs = defaultDeadlineMs, context?: () => string): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => { reject(timeOut(what, deadlineMs, context?.())); }, deadlineMs);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Calls `look` until it returns something other than undefined or false, and returns that. For /proc and other
 * places that announce nothing; where an event exists, wait for the event. What `look` throws ends the wait.
 */
export async function until<T>(look: () => T | Promise<T>, options: UntilOptions): Promise<Exclude<T, undefined | false>> {
  const deadlineMs = options.deadlineMs ?? defaultDeadlineMs;
  const end = performance.now() + deadlineMs;
  for (;;) {
    const seen = await look();
    if (seen !== undefined && seen !== false) return seen as Exclude<T, undefined | false>;
    if (performance.now() > end) throw timeOut(options.what, deadlineMs, options.context?.());
    await new Promise((resolve) => { setTimeout(resolve, pollMs); });
  }
}

/** First argument of the next `event` of the emitter. Unlike events.once it does not reject on `error`, so that errors can be awaited too. */
export function event<T>(emitter: EventEmitter, name: string, deadlineMs = defaultDeadlineMs): Promise<T> {
  let listener: (value: T) => void = () => undefined;
  const happened = new Promise<T>((resolve) => { listener = resolve; emitter.once(name, listener); });
  return within(happened, `the event ${name}`, deadlineMs).finally(() => { emitter.removeListener(name, listener); });
}
