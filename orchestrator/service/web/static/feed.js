// What moves any job: /v1/events as messages. One feed serves all tabs, from the shared worker.

import { keep } from "./stream.js";

// The service says something every 15 s.
const QUIET_MS = 45000;

export class Feed {
  // `send` gets {move, id}, {state, ms}, and {at}: the number of the newest event that is known.
  constructor(send) {
    this.send = send;
    this.state = null;
    this.at = null;
  }

  // Begin behind the number, if it has not begun.
  start(at) {
    if (this.stop) return;
    if (this.at === null) this.at = at;
    const control = new AbortController();
    this.stop = () => { control.abort(); this.stop = null; };
    let text = "";
    const decoder = new TextDecoder();
    keep({
      open: () => {
        text = "";
        return { url: "/v1/events", headers: { "Last-Event-ID": String(this.at) } };
      },
      take: (bytes) => {
        text += decoder.decode(bytes, { stream: true });
        const parts = text.split("\n\n");
        text = parts.pop();
        for (const part of parts) this.one(part);
      },
      over: () => false, // it ends from time to time, and goes on
      tell: (state, ms) => {
        this.state = { state, ms };
        this.send(this.state);
        if (state === "out" || state === "over") this.stop = null;
      },
      signal: control.signal,
      quietMs: QUIET_MS,
    });
  }

  one(part) {
    const fields = {};
    for (const line of part.split("\n")) {
      const colon = line.indexOf(": ");
      if (colon > 0) fields[line.slice(0, colon)] = line.slice(colon + 2);
    }
    if (fields.id === undefined) return;
    this.at = Number(fields.id);
    if (fields.event === "move") this.send({ move: JSON.parse(fields.data), id: this.at });
  }
}
