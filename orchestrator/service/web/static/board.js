// The board: shows runs as they start and change.

import { live, sign } from "./live.js";

const RUNS = 30, MOST = 50;
const list = document.getElementById("runs");
const changed = new Set();
let unseen = 0;

live({
  wants(move) {
    if (move) changed.add(move.run);
    else for (const run of list.children) changed.add(run.dataset.run);
    return true; // what queued jobs wait for may have changed
  },
  url() {
    const query = new URLSearchParams();
    for (const run of [...changed].slice(0, MOST)) { query.append("run", run); changed.delete(run); }
    return `/parts/board?${query}`;
  },
  place(run) {
    if (list.dataset.live !== "new" || !run.dataset.run) return;
    document.querySelector("div.nothing")?.remove();
    run.classList.add("new");
    list.prepend(run);
    while (list.children.length > RUNS) list.lastElementChild.remove();
  },
  moved(move) {
    if (document.hidden && move.verdict && move.verdict !== "passed") unseen += 1;
  },
  swapped: show,
});

// The title of a hidden page says why to come back.
function show() {
  if (!document.hidden) unseen = 0;
  const running = Number(document.getElementById("now").dataset.running);
  const newest = [...list.children].find((run) => !["running", "queued"].includes(run.dataset.mark));
  if (unseen) sign("failed", `${unseen} failed`);
  else if (running) sign("running", `${running} running`);
  else {
    sign(newest?.dataset.mark ?? "quiet", "");
    document.title = "pikaci";
  }
}
document.addEventListener("visibilitychange", show);
show();
