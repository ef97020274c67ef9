// An endless stream of events, resumed when its connection is lost or ends.

const FIRST_MS = 500, MOST_MS = 15000;

// `open()` returns each request: {url, headers}. `take(bytes)` gets the bytes; if it returns a
// promise, that is awaited. `tell` is called with "live", "lost" (and the ms until the next try),
// "out" (not logged in), or "over" (the service has no more, or no such stream). A connection without
// a byte for `quietMs` is lost.
export async function keep({ open, take, tell, signal, quietMs }) {
  let wait = FIRST_MS;
  while (!signal.aborted) {
    let came = false;
    const attempt = new AbortController();
    const stop = () => attempt.abort();
    signal.addEventListener("abort", stop);
    let timer;
    const heard = () => {
      clearTimeout(timer);
      timer = setTimeout(stop, quietMs);
    };
    try {
      heard();
      const { url, headers } = open();
      const answer = await fetch(url, { headers, signal: attempt.signal, cache: "no-store" });
      if (answer.status === 401) return tell("out");
      if (answer.status === 204 || answer.status === 404) return tell("over");
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      tell("live");
      const reader = answer.body.getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        heard();
        wait = FIRST_MS;
        came = true;
        await take(value);
      }
      if (came && !signal.aborted) continue; // it ended normally
    } catch {
      // Lost, for whatever reason: try again.
    } finally {
      clearTimeout(timer);
      attempt.abort();
      signal.removeEventListener("abort", stop);
    }
    if (signal.aborted) return;
    const ms = wait * (0.75 + Math.random() / 2);
    wait = Math.min(2 * wait, MOST_MS);
    tell("lost", ms);
    await pause(ms, signal);
  }
}

function pause(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(done, ms);
    function done() {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    }
    signal.addEventListener("abort", done);
  });
}
