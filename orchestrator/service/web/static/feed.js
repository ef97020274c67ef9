// What moves any job: /v1/events as messages. One feed serves all tabs, from the shared worker.

import { Frames, QUIET_MS } from "./frames.js";
import { keep } from "./stream.js";

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
    const frames = new Frames();
    keep({
      open: () => {
        frames.clear();
        return { url: "/v1/events", headers: { "Last-Event-ID": String(this.at) } };
      },
      take: (bytes) => frames.take(bytes).forEach((fields) => this.one(fields)),
      tell: (state, ms) => {
        this.state = { state, ms };
        this.send(this.state);
        if (state === "out" || state === "over") this.stop = null;
      },
      signal: control.signal,
      quietMs: QUIET_MS,
    });
  }

  one(fields) {
    if (fields.id === undefined) return;
    this.at = Number(fields.id);
    if (fields.event === "move") this.send({ move: JSON.parse(fields.data), id: this.at });
  }
}
