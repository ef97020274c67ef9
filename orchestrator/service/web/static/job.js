// A job's page: live states, live log, and the cancel button.

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
    log.restart(); // each attempt has its own log
  }
  if (ended() && !wasEnded) setTimeout(refresh, LATER_MS); // to show the deletion of the guest too
  wasEnded = ended();
  document.getElementById("log-error").hidden = !["failed", "timed_out"].includes(job.mark);
}
show();

// Send the form as without a script, but stay on the page.
document.addEventListener("submit", async (event) => {
  if (!event.target.closest("#cancel")) return;
  event.preventDefault();
  const body = new URLSearchParams(new FormData(event.target, event.submitter));
  document.getElementById("cancel").open = false;
  await fetch(event.target.action, { method: "POST", body, redirect: "manual" });
  refresh();
});
