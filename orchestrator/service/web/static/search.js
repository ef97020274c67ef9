// Searches the whole log, not just the shown part, for lines that contain a text.

import { parse } from "./ansi.js";
import { join, split, text } from "./lines.js";

const MOST = 10000, SOON_MS = 200;

export class Search {
  constructor(log) {
    this.log = log;
    this.form = document.getElementById("log-search");
    this.query = document.getElementById("log-query");
    this.count = document.getElementById("log-count");
    this.form.hidden = false;
    this.reset("");
    let timer;
    this.query.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(() => this.start(), SOON_MS);
    });
    this.form.addEventListener("submit", (event) => { event.preventDefault(); this.step(1); });
    this.query.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && event.shiftKey) { event.preventDefault(); this.step(-1); }
      if (event.key === "Escape") { this.query.value = ""; this.start(); }
    });
    document.getElementById("log-prev").addEventListener("click", () => this.step(-1));
    log.onlines = (lines) => this.shown(lines);
    addEventListener("keydown", (event) => {
      if (event.key !== "/" || event.target.closest?.("input, select, textarea")) return;
      event.preventDefault();
      this.query.focus();
    });
  }

  reset(wanted) {
    this.control?.abort();
    this.wanted = wanted;
    this.found = []; // numbers of lines
    this.at = -1;
    this.searched = 0; // bytes
    this.lineNumber = 1;
    globalThis.CSS?.highlights?.delete("found");
  }

  async start() {
    const wanted = this.query.value.toLowerCase();
    if (wanted === this.wanted) return;
    this.reset(wanted);
    this.tell();
    if (!wanted) return;
    this.mark();
    const control = this.control = new AbortController();
    try {
      const answer = await fetch(this.log.source.address, { signal: control.signal, cache: "no-store" });
      const reader = answer.body.getReader();
      let rest = new Uint8Array();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        const bytes = join(rest, value), to = bytes.lastIndexOf(10) + 1;
        rest = bytes.slice(to);
        if (rest.length > 1 << 20) rest = rest.slice(0, 1 << 20); // search only the start of a huge line
        this.look(split(bytes.subarray(0, to), 0).lines);
        if (this.at < 0 && this.found.length) this.step(1);
        this.tell();
        await new Promise((resolve) => setTimeout(resolve));
      }
      if (rest.length) this.look([split(rest, 0).open]);
      if (this.at < 0 && this.found.length) this.step(1);
    } catch {
      // Another search has begun, or the connection is lost, which the log reports.
    }
    if (control === this.control) this.tell();
  }

  look(lines) {
    for (const line of lines) {
      if (this.found.length < MOST && plain(line).includes(this.wanted)) this.found.push(this.lineNumber);
      this.lineNumber += 1;
    }
  }

  // New lines are on the page.
  shown(lines) {
    if (!this.wanted) return;
    const first = this.log.first + this.log.lines.indexOf(lines[0]);
    if (first <= this.lineNumber) this.look(lines.slice(this.lineNumber - first));
    this.mark();
    this.tell();
  }

  step(by) {
    if (!this.found.length) return;
    this.at = (this.at + by + this.found.length) % this.found.length;
    this.log.toLine(this.found[this.at]);
    this.tell();
  }

  tell() {
    const many = this.found.length === MOST ? `${MOST}+` : this.found.length;
    this.count.textContent = !this.wanted ? "" : !this.found.length ? "none"
      : `${this.at + 1} of ${many}`;
  }

  // Highlight matches in the shown lines, without changing their nodes.
  mark() {
    if (!globalThis.CSS?.highlights) return;
    const ranges = [];
    for (const { body } of this.log.lines) {
      const whole = body.textContent.toLowerCase();
      for (let at = whole.indexOf(this.wanted); at >= 0; at = whole.indexOf(this.wanted, at + this.wanted.length))
        ranges.push(range(body, at, at + this.wanted.length));
    }
    CSS.highlights.set("found", new Highlight(...ranges));
  }
}

function plain(line) {
  return parse(text(line).text).pieces.map((piece) => piece.text).join("").toLowerCase();
}

function range(body, from, to) {
  const made = document.createRange();
  const walker = document.createTreeWalker(body, NodeFilter.SHOW_TEXT);
  let passed = 0;
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const end = passed + node.length;
    if (from >= passed && from < end) made.setStart(node, from - passed);
    if (to > passed && to <= end) { made.setEnd(node, to - passed); break; }
    passed = end;
  }
  return made;
}
