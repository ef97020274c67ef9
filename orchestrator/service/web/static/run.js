// A run's page.

import { live, sign } from "./live.js";

const whole = () => document.getElementById("whole");

live({
  wants: (move) => !move || move.run === whole().dataset.run,
  url: () => location.pathname,
  swapped: show,
});

function show() {
  const run = whole().dataset;
  sign(run.mark, `${whole().querySelector("h2 .word").textContent} · run #${run.number}`);
}
show();
