// For programs that `npm start` runs: they tell it what they do, and do not outlive it. By hand they talk to people instead.

/** To whoever started us with an IPC channel; else for people. */
export const tell = (message) => (process.send === undefined ? console.log(JSON.stringify(message)) : process.send(message));

/** Runs the program; it ends when `main` does and its last connection, or with its parent, and with the reason when it fails. */
export async function endWithParent(main) {
  if (process.send !== undefined) {
    let others = [];
    process.on('message', (message) => { others = message.others ?? others; });
    // Whoever started us was killed and could not clean up: what it started too must not stay behind.
    process.on('disconnect', () => {
      for (const pid of others) try { process.kill(pid, 'SIGTERM'); } catch { /* it has ended as well */ }
      process.exit(1);
    });
  }
  try {
    await main();
    // The IPC channel would keep the process; connections that are still open end in their own time.
    process.channel?.unref();
  } catch (error) {
    if (process.send === undefined) console.error(error.message);
    else await new Promise((resolve) => { process.send({ failed: error.message }, resolve); });
    process.exit(1);
  }
}
