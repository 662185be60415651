/** Globs of the access rules. Linear in time: the name that is matched comes from a client. */

/** Does the whole of `text` match? `*` stands for any run of characters, `?` for one; everything else for itself. */
export function matchesGlob(glob: string, text: string): boolean {
  let g = 0;
  let t = 0;
  let star = -1;
  let retry = 0;
  while (t < text.length) {
    if (glob[g] === '*') {
      star = g++;
      retry = t;
    } else if (g < glob.length && (glob[g] === '?' || glob[g] === text[t])) {
      g++;
      t++;
    } else if (star >= 0) {
      g = star + 1;
      t = ++retry;
    } else {
      return false;
    }
  }
  while (glob[g] === '*') g++;
  return g === glob.length;
}
