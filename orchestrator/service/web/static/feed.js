// State changes of all jobs: /v1/events as messages. The shared worker has one feed for all tabs.

import { Frames, QUIET_MS } from "./frames.js";
import { keep } from "./stream.js";

export class Feed {
  // `send` gets {move, id}, {state, ms}, and {at}: the number of the newest known event.
  constructor(send) {
    this.send = send;
    this.state = null;
    this.at = null;
  }

  // Start after this number, if not started yet.
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
