// Keeps a page up to date: listens for changes, fetches the parts that changed, and swaps them.

import { copyButtons } from "./copy.js";
import { Feed } from "./feed.js";
import { tick } from "./times.js";

// Events close together cause one fetch; a hidden page fetches less often.
const SOON_MS = 100, APART_MS = 1000, HIDDEN_MS = 5000;
const icon = document.querySelector("link[rel=icon]");
const link = document.getElementById("link");

// `wants(move)`: whether a change affects the page; `url()`: what to fetch then; `place(part)`
// inserts a new part; `moved(move)` and `swapped()` are callbacks.
export function live({ wants, url, place = () => {}, moved = () => {}, swapped = () => {} }) {
  let at = Number(document.documentElement.dataset.at);
  let timer = null, busy = false, again = false, last = 0;

  function refresh() {
    if (busy) { again = true; return; }
    if (timer !== null) return;
    const apart = document.hidden ? HIDDEN_MS : APART_MS;
    timer = setTimeout(run, Math.max(SOON_MS, last + apart - performance.now()));
  }

  async function run() {
    timer = null;
    busy = true;
    again = false;
    try {
      const answer = await fetch(url(), { cache: "no-store" });
      if (answer.status === 401) location.reload();
      if (answer.ok) {
        swap(await answer.text(), place);
        swapped();
      }
    } catch {
      again = true; // the feed reports lost connections
    }
    last = performance.now();
    busy = false;
    if (again) refresh();
  }

  function hear(message) {
    if (message.move) {
      if (message.id > at) at = message.id;
      moved(message.move);
      if (wants(message.move)) refresh();
    } else if (message.at !== undefined) {
      // Something may have changed since this page was rendered.
      if (message.at > at) { at = message.at; wants(null); refresh(); }
    } else {
      say(message.state, message.ms);
      if (message.state === "live") { wants(null); refresh(); }
    }
  }

  connect(() => at, hear);
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && timer !== null) { clearTimeout(timer); timer = null; refresh(); }
  });
  tick();
  copyButtons();
  return refresh;
}

function connect(at, hear) {
  if (typeof SharedWorker === "undefined") {
    const feed = new Feed(hear);
    const follow = () => (document.hidden ? feed.stop?.() : feed.start(at()));
    document.addEventListener("visibilitychange", follow);
    follow();
    return;
  }
  const worker = new SharedWorker(new URL("./worker.js", import.meta.url), {
    type: "module", name: "pikaci",
  });
  worker.port.onmessage = ({ data }) => hear(data);
  const greet = () => worker.port.postMessage({ at: at() });
  addEventListener("pagehide", () => worker.port.postMessage({ bye: true }));
  addEventListener("pageshow", (event) => event.persisted && greet());
  greet();
}

function say(state, ms) {
  if (state === "out") return location.reload();
  link.className = `link ${state}`;
  link.textContent = state === "live" ? "live"
    : `connection lost, retrying${ms > 2000 ? ` in ${Math.round(ms / 1000)} s` : ""}`;
}

// Replace parts with those of the same id in the answer.
function swap(html, place) {
  const made = new DOMParser().parseFromString(html, "text/html");
  for (const part of made.querySelectorAll("[data-part]")) {
    const old = document.getElementById(part.id);
    if (!old) {
      const fresh = document.importNode(part, true);
      place(fresh);
      copyButtons(fresh);
    } else if (old.made !== part.outerHTML) {
      const fresh = document.importNode(part, true);
      fresh.made = part.outerHTML;
      for (const { id, open } of old.querySelectorAll("details[id]"))
        fresh.querySelector(`#${id}`)?.toggleAttribute("open", open);
      const focused = old.contains(document.activeElement) ? trail(old, document.activeElement) : null;
      old.replaceWith(fresh);
      focused?.(fresh)?.focus();
      copyButtons(fresh);
    }
  }
}

// How to find this element in the next version of its part.
function trail(root, element) {
  const kind = element.tagName, text = element.textContent;
  return (fresh) => [...fresh.querySelectorAll(kind)].find((found) => found.textContent === text);
}

const SIGNS = {
  passed: "✓", failed: "✗", timed_out: "✗", infrastructure: "▲", rejected: "✗", cancelled: "–",
  cancelling: "–", damaged: "▲", running: "●", queued: "○", reused: "✓", skipped: "–",
};

export function sign(mark, words) {
  document.title = `${SIGNS[mark] ?? ""} ${words} · pikaci`.trim();
  const name = mark === "passed" || mark === "running" ? mark
    : mark === "reused" ? "passed" : ["queued", "quiet", "skipped"].includes(mark) ? "quiet" : "failed";
  const href = new URL(`./icon-${name}.svg`, import.meta.url).pathname;
  if (icon.getAttribute("href") !== href) icon.setAttribute("href", href);
}
