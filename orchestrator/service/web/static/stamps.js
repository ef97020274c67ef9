// The times of lines: when the host received them.

const SOON_MS = 500, MOST_PAGES = 20;

export class Stamps {
  constructor(log) {
    this.log = log;
    this.on = false;
    this.busy = false;
    this.clear();
  }

  clear() {
    this.records = []; // [byte, milliseconds or null]
    clearTimeout(this.timer);
  }

  show(on) {
    this.on = on;
    if (on) this.load();
  }

  // Lines have come; their times are read soon.
  lines() {
    if (!this.on) return;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.load(), SOON_MS);
  }

  async load() {
    if (this.busy || !this.log.lines.length) return;
    this.busy = true;
    try {
      await this.read();
    } catch {
      // The log reports lost connections.
    }
    this.busy = false;
  }

  async read() {
    const first = this.log.lines[0]?.at ?? 0, last = this.records.at(-1)?.[0] ?? -1;
    // Earlier lines than any known: start over.
    if (this.records.length && this.records[0][0] > first) this.records = [];
    let after = this.records.length ? last : first;
    for (let pages = 0; after !== null && pages < MOST_PAGES; pages += 1) {
      const answer = await fetch(`${this.log.source.address}/times?after=${after}`, { cache: "no-store" });
      if (!answer.ok) break;
      const { times, next } = await answer.json();
      const known = this.records.at(-1)?.[0] ?? -1;
      this.records.push(...times.filter(([byte]) => byte > known));
      after = next;
    }
    for (const line of this.log.lines) {
      const link = line.node.firstChild;
      if (link.dataset.t) continue;
      const ms = this.at(line.at);
      if (ms === null) continue;
      const moment = new Date(ms);
      link.dataset.t = [moment.getHours(), moment.getMinutes(), moment.getSeconds()]
        .map((part) => String(part).padStart(2, "0")).join(":");
      link.title = moment.toISOString();
    }
  }

  // The time of the last record that begins at or before this byte.
  at(byte) {
    let low = 0, high = this.records.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.records[middle][0] <= byte) low = middle + 1; else high = middle;
    }
    return low ? this.records[low - 1][1] : null;
  }
}
