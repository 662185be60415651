/** The systemd unit that a process belongs to, from its cgroup. */

/** systemd.unit(5): the characters of unit names, and at most 255 of them. */
const unitName = /^[A-Za-z0-9:_.\\@-]{1,247}\.(service|scope)$/;

/** The path of the cgroup that systemd manages: the unified hierarchy, else its own named one. */
function managedPath(text: string): string | undefined {
  let named: string | undefined;
  let unified: string | undefined;
  for (const line of text.split('\n')) {
    if (line.startsWith('0::/')) unified = line.slice(3);
    else if (/^\d+:name=systemd:\//.test(line)) named = line.slice(line.indexOf(':', line.indexOf(':') + 1) + 1);
  }
  // On a hybrid host the unified hierarchy is there, but may be empty.
  return unified !== undefined && unified !== '/' ? unified : named;
}

/**
 * The unit of the *system's* service manager, from the text of /proc/PID/cgroup; undefined where there is none.
 *
 * It is the first component that is no slice, as in systemd's cg_path_get_unit, never the last: a user's own manager
 * runs below user@UID.service and may name its units `dovecot.service` as it likes. Fails closed: a path out of
 * our cgroup namespace (`..`), odd characters, or a removed cgroup give no unit.
 */
export function parseUnit(text: string): string | undefined {
  const path = managedPath(text);
  if (path === undefined || path.endsWith(' (deleted)')) return undefined;
  const first = path.split('/').slice(1).find((part) => !/^[A-Za-z0-9:_.\\@-]+\.slice$/.test(part));
  if (first === undefined) return undefined;
  // cg_escape: systemd puts one underscore before names that the kernel could take for its own files.
  const name = first.startsWith('_') ? first.slice(1) : first;
  return unitName.test(name) ? name : undefined;
}
