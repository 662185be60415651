/** Medians and ratios. */
import { figures, reference } from './rows.mjs';

/** @param {readonly number[]} values  at least one */
export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/**
 * @typedef {object} Verdict
 * @property {import('./rows.mjs').Figure} figure
 * @property {Map<string, number>} medians  by contender
 * @property {Map<string, number>} spread  by contender: (largest - smallest) / median of the rounds
 * @property {string} [best]  name of the best peer; absent when no peer took part
 * @property {number} [ratio]  tlspool's advantage over that peer: computed in each round, then the median
 * @property {boolean} [reached]  absent when there is nothing to compare
 */

/**
 * @param {import('./rows.mjs').Figure} figure
 * @param {Map<string, import('./rows.mjs').Sample[]>} samples  by contender, one per round
 * @returns {Verdict}
 */
export function judge(figure, samples) {
  const values = new Map([...samples].map(([name, rounds]) => [name, rounds.map(figure.value)]));
  const medians = new Map([...values].map(([name, rounds]) => [name, median(rounds)]));
  const spread = new Map([...values].map(([name, rounds]) => [name, (Math.max(...rounds) - Math.min(...rounds)) / medians.get(name)]));
  const own = values.get('tlspool');
  const order = figure.higherIsBetter === true ? -1 : 1;
  const best = [...medians].filter(([name]) => name !== 'tlspool' && name !== reference).sort((a, b) => order * (a[1] - b[1]))[0]?.[0];
  const verdict = { figure, medians, spread, best };
  if (own === undefined) return verdict;
  if (best !== undefined) {
    verdict.ratio = median(values.get(best).map((peer, round) => (figure.higherIsBetter === true ? own[round] / peer : peer / own[round])));
    if (figure.target !== undefined) verdict.reached = verdict.ratio >= figure.target;
  }
  if (figure.ceiling !== undefined) verdict.reached = medians.get('tlspool') <= figure.ceiling;
  return verdict;
}

/** @param {Map<string, Map<string, import('./rows.mjs').Sample[]>>} results  by load, then by contender */
export function judgeAll(results) {
  return figures.filter(({ load }) => results.has(load)).map((figure) => judge(figure, results.get(figure.load)));
}
