// A job's page: its states as they come, its log as it grows, its end on demand.

import { live, sign } from "./live.js";
import { Log } from "./log.js";
import { Search } from "./search.js";

const LATER_MS = 3000;
const head = () => document.getElementById("job-head");
const id = document.getElementById("log").dataset.job;
const ended = () => head().dataset.ended === "1";
let wasEnded = ended(), attempt = head().dataset.attempt;

const log = new Log(document.getElementById("log"), id, ended);
new Search(log);

const refresh = live({
  wants: (move) => !move || move.job === id || head().dataset.mark === "queued",
  url: () => `/parts/jobs/${encodeURIComponent(id)}`,
  swapped: show,
});

function show() {
  const job = head().dataset;
  sign(job.mark, `${job.word} · ${job.name}`);
  if (job.attempt !== attempt) {
    attempt = job.attempt;
    log.restart(); // another attempt has a log of its own
  }
  if (ended() && !wasEnded) setTimeout(refresh, LATER_MS); // the guest's end is in its trace too
  wasEnded = ended();
}
show();

// The form does what it does without a script, and the page stays.
document.addEventListener("submit", async (event) => {
  if (!event.target.closest("#cancel")) return;
  event.preventDefault();
  const body = new URLSearchParams(new FormData(event.target, event.submitter));
  document.getElementById("cancel").open = false;
  await fetch(event.target.action, { method: "POST", body, redirect: "manual" });
  refresh();
});
