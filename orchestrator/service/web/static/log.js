// Shows a job's log: its live end, or any other part. However long the log is, the page holds only
// some thousand lines.

import { PLAIN, element, parse } from "./ansi.js";
import { Source, beginning, join, longer, split, text } from "./lines.js";
import { Frames, QUIET_MS, fromBase64 } from "./frames.js";
import { Folds, markOf } from "./fold.js";
import { Stamps } from "./stamps.js";
import { keep } from "./stream.js";
import { makeSwitch } from "./switches.js";

const BLOCK = 256 * 1024;
const MOST = 5000; // lines
const DRAW_MS = 50, PENDING = 1024 * 1024, HIDDEN_MS = 5000;
const NEAR = 30; // pixels

export class Log {
  // `ended()`: whether the job has ended. `onlines(lines)` is called with lines as they are shown.
  constructor(box, job, ended) {
    this.box = box;
    this.ended = ended;
    this.source = new Source(job);
    this.job = job;
    this.onlines = () => {};
    this.state = document.getElementById("log-state");
    this.end = document.getElementById("log-end");
    this.body = document.createElement("div");
    this.before = more("earlier lines", () => this.earlier());
    this.after = more("later lines", () => this.later());
    this.stop = () => {};
    this.turn = 0;
    this.digits = 3;
    this.folds = new Folds(this, document.getElementById("log-fold"));
    this.stamps = new Stamps(this);
    this.clear(1);
    makeSwitch("log-wrap", true, (on) => box.classList.toggle("long", !on));
    makeSwitch("log-times", false, (on) => { box.classList.toggle("timed", on); this.stamps.show(on); });
    document.getElementById("log-error").addEventListener("click", () => this.toError());
    this.end.addEventListener("click", () => (this.following ? this.stick() : this.toEnd()));
    box.addEventListener("scroll", () => this.scrolled());
    addEventListener("hashchange", () => this.toHash());
    document.addEventListener("visibilitychange", () => this.seen());
    this.toHash() || this.toEnd();
  }

  clear(first) {
    this.lines = [];
    this.first = first; // the number of the first line
    this.open = null; // the last line, while unfinished: {line, node}
    this.style = PLAIN;
    this.waiting = [];
    this.pending = 0;
    this.following = false;
    this.stuck = true;
    this.folds.clear();
    this.stamps.clear();
    this.body.replaceChildren();
  }

  get next() { return this.open?.line.end ?? this.lines.at(-1)?.end ?? 0; }

  // Start over; drop what an earlier load still waits for.
  begin() {
    this.stop();
    this.turn += 1;
    return this.turn;
  }

  async toEnd() {
    const turn = this.begin();
    const found = await this.tried(async () => this.source.lines(await this.source.read(`-${BLOCK}`)));
    if (turn !== this.turn || !found) return;
    this.show(found);
    this.stick();
    this.follow();
  }

  restart() {
    this.begin();
    this.clear(1);
    this.box.replaceChildren(this.before, this.body, this.after);
    this.follow();
  }

  show({ lines, open, first }) {
    const skipped = Math.max(0, lines.length - MOST);
    this.clear(first + skipped);
    this.box.replaceChildren(this.before, this.body, this.after);
    this.append(lines.slice(skipped));
    if (open) this.setOpen(open);
    this.edges();
  }

  // A number in the URL's hash is the line to show.
  toHash() {
    const found = /^#L(\d+)$/.exec(location.hash);
    if (found) this.toLine(Number(found[1]));
    return found;
  }

  async toLine(number) {
    if (!this.node(number)) {
      const turn = this.begin();
      const found = await this.tried(async () => {
        const { line, byte } = await this.source.place({ line: number });
        if (line !== number) return null;
        const from = Math.max(0, byte - BLOCK / 4);
        const found = await this.source.lines(await this.source.read(`${from}-${from + BLOCK - 1}`));
        return this.closed(found, number);
      });
      if (turn !== this.turn) return;
      if (!found) { await this.toEnd(); return; }
      const skip = Math.max(0, number - found.first - MOST / 2);
      this.show({ ...found, lines: found.lines.slice(skip, skip + MOST), first: found.first + skip });
      if (this.next >= found.size) this.follow();
    }
    const node = this.node(number);
    if (!node) return;
    this.folds.reveal(this.lines[number - this.first]);
    this.body.querySelector(".here")?.classList.remove("here");
    node.classList.add("here");
    this.stuck = false;
    this.box.scrollTop = node.offsetTop - this.box.clientHeight / 3;
    this.edges();
  }

  // To the line that says why the job failed.
  async toError() {
    const answer = await fetch(`${this.source.address}/place?error=true`, { cache: "no-store" });
    this.state.textContent = answer.ok ? "" : "no error found";
    if (answer.ok) await this.toLine((await answer.json()).line);
  }

  // Lines from the middle of a log. The last one continues after what was read, so leave it out,
  // unless it is the `wanted` one or the only one.
  async closed(found, wanted) {
    const { lines, open, first, size } = found, number = first + lines.length;
    if (!open || open.end >= size) return found;
    if (lines.length && number !== wanted) return { ...found, open: null };
    const { line, byte } = await this.source.place({ line: number + 1 });
    const text = byte - (line > number ? 1 : 0); // without its line break
    const whole = { ...open, end: byte, without: open.without + text - open.end };
    return { ...found, open: null, lines: [...lines, whole] };
  }

  async earlier() {
    const to = this.lines[0]?.at ?? this.open?.line.at ?? 0;
    if (!to || this.before.disabled) return;
    this.before.disabled = true;
    const turn = this.turn, from = Math.max(0, to - BLOCK);
    const found = await this.tried(async () => this.source.lines(await this.source.read(`${from}-${to - 1}`)));
    this.before.disabled = false;
    if (turn !== this.turn || !found) return;
    const lines = found.lines.slice(-MOST / 2), height = this.box.scrollHeight;
    const nodes = document.createDocumentFragment();
    let style = PLAIN;
    lines.forEach((line, index) => {
      style = this.draw(line, this.first - lines.length + index, style);
      nodes.append(line.node);
    });
    this.first -= lines.length;
    this.lines.unshift(...lines);
    this.body.prepend(nodes);
    this.folds.update();
    this.stamps.lines();
    this.stuck = false;
    this.box.scrollTop += this.box.scrollHeight - height;
    if (this.lines.length > MOST) this.detach();
    this.onlines(lines);
    this.edges();
  }

  // The shown part no longer ends where the log ends.
  detach() {
    this.stop();
    this.waiting = [];
    this.pending = 0;
    this.following = false;
    this.open?.node.remove();
    this.open = null;
    for (const line of this.lines.splice(MOST)) line.node.remove();
  }

  async later() {
    if (this.following || this.after.disabled) return;
    this.after.disabled = true;
    const turn = this.turn, from = this.next;
    const found = await this.tried(async () => this.closed(
      await this.source.lines(await this.source.read(`${from}-${from + BLOCK - 1}`))));
    this.after.disabled = false;
    if (turn !== this.turn || !found) return;
    this.append(found.lines.slice(0, MOST / 2));
    if (found.open && found.lines.length <= MOST / 2) this.setOpen(found.open);
    this.trim();
    if (this.next >= found.size) this.follow();
    this.edges();
  }

  // Follow the log until the job has ended.
  follow() {
    const control = new AbortController();
    this.following = true;
    this.stop = () => { control.abort(); this.stop = () => {}; };
    const frames = new Frames(), { signal } = control;
    let id = null;
    keep({
      open: () => {
        frames.clear();
        return {
          url: `${this.source.address}/events?after=${this.next + this.pending}`,
          headers: id === null ? {} : { "Last-Event-ID": id },
        };
      },
      take: (bytes) => {
        let drawn;
        for (const found of frames.take(bytes)) {
          if (found.id === undefined || signal.aborted) continue;
          // Each attempt has its own log.
          if (id !== null && found.id.split(".")[0] !== id.split(".")[0]) return this.restart();
          id = found.id;
          drawn = this.take(fromBase64(found.data), signal);
        }
        return drawn;
      },
      tell: (state) => {
        this.state.className = state === "lost" ? "link lost" : "soft";
        this.state.textContent = state === "lost" ? "connection lost, retrying"
          : state === "live" && !this.ended() ? "Following" : "";
      },
      signal,
      quietMs: QUIET_MS,
    });
    this.edges();
  }

  seen() {
    clearTimeout(this.away);
    if (document.hidden) this.away = setTimeout(() => { this.stop(); this.left = this.following; }, HIDDEN_MS);
    else if (this.left) { this.left = false; this.flush(); this.follow(); }
  }

  // Take new bytes; return a promise if they arrive faster than they are drawn.
  take(bytes, signal) {
    if (signal.aborted) return undefined;
    this.waiting.push(bytes);
    this.pending += bytes.length;
    this.drawn ??= new Promise((resolve) => setTimeout(() => {
      this.drawn = null;
      this.flush();
      resolve();
    }, DRAW_MS));
    return this.pending > PENDING ? this.drawn : undefined;
  }

  flush() {
    if (!this.pending) return;
    let bytes = this.waiting.reduce(join, new Uint8Array());
    let at = this.next;
    this.waiting = [];
    this.pending = 0;
    if (this.open) {
      const to = bytes.indexOf(10);
      const grown = longer(this.open.line, to < 0 ? bytes : bytes.subarray(0, to));
      if (to < 0) { this.setOpen(grown); return this.stick(this.stuck); }
      this.open.node.remove();
      this.open = null;
      this.append([{ ...grown, end: grown.end + 1 }]);
      bytes = bytes.subarray(to + 1);
      at = grown.end + 1;
    }
    const { lines, open } = split(bytes, at);
    if (lines.length > MOST) { // faster than anybody can read
      const first = this.first + this.lines.length + lines.length - MOST, { stuck } = this;
      this.clear(first);
      Object.assign(this, { stuck, following: true });
    }
    this.append(lines.slice(-MOST));
    if (open) this.setOpen(open);
    if (this.stuck) this.trim();
    else if (this.lines.length > 2 * MOST) this.detach();
    this.stick(this.stuck);
    return undefined;
  }

  append(lines) {
    const nodes = document.createDocumentFragment();
    for (const line of lines) {
      this.style = this.draw(line, this.first + this.lines.length, this.style);
      this.lines.push(line);
      nodes.append(line.node);
    }
    this.body.append(nodes);
    if (!lines.length) return;
    this.folds.update();
    this.stamps.lines();
    this.onlines(lines);
  }

  setOpen(line) {
    this.open?.node.remove();
    this.draw(line, this.first + this.lines.length, this.style);
    this.open = { line, node: line.node };
    this.body.append(line.node);
  }

  trim() {
    const gone = this.lines.splice(0, Math.max(0, this.lines.length - MOST));
    for (const line of gone) line.node.remove();
    this.first += gone.length;
    this.edges();
  }

  // Make the line's node; return the style in which the next line starts.
  draw(line, number, style) {
    line.mark = markOf(beginning(line));
    const shown = line.mark?.start ? { text: line.mark.title, cut: 0 } : text(line);
    const parsed = parse(shown.text, style);
    const node = document.createElement("div"), link = document.createElement("a"), body = document.createElement("span");
    node.className = "line";
    node.id = `L${number}`;
    link.href = `#L${number}`;
    link.dataset.n = number;
    link.tabIndex = -1;
    link.ariaLabel = `line ${number}`;
    const digits = String(number).length;
    if (digits > this.digits) {
      this.digits = digits;
      this.box.style.setProperty("--digits", digits);
    }
    for (const piece of parsed.pieces) body.append(piece.style === PLAIN ? piece.text : element(piece));
    if (shown.cut) {
      const cut = document.createElement("span");
      cut.className = "cut";
      cut.textContent = ` … ${shown.cut.toLocaleString("en")} more bytes`;
      body.append(cut);
    }
    node.append(link, body);
    if (line.mark?.start) body.prepend(this.folds.head(line));
    line.node = node;
    line.body = body;
    return parsed.style;
  }

  node(number) { return this.lines[number - this.first]?.node; }

  stick(wanted = true) {
    this.stuck = wanted;
    if (wanted) this.box.scrollTop = this.box.scrollHeight;
    this.top = this.box.scrollTop;
    this.edges();
  }

  scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.box;
    const below = scrollHeight - clientHeight - scrollTop;
    if (below < NEAR && this.following) this.stuck = true;
    else if (scrollTop < this.top - 2) this.stuck = false;
    this.top = scrollTop;
    this.edges();
  }

  edges() {
    this.before.hidden = !(this.lines[0]?.at ?? this.open?.line.at);
    this.after.hidden = this.following;
    const fits = this.box.scrollHeight <= this.box.clientHeight + 2;
    this.end.hidden = this.following && (this.stuck || fits);
  }

  async tried(work) {
    try {
      return await work();
    } catch {
      this.state.className = "link lost";
      this.state.textContent = "the log could not be read; reload the page";
      return null;
    }
  }
}

function more(label, click) {
  const button = document.createElement("button");
  button.className = "more";
  button.textContent = label;
  button.hidden = true;
  button.addEventListener("click", click);
  return button;
}
