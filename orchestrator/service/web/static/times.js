// Times as they pass: `words.py` says the same when the page is made.

export function age(secs) {
  if (secs < 5) return "just now";
  for (const [limit, unit, name] of [[60, 1, "s"], [3600, 60, "min"], [172800, 3600, "h"]])
    if (secs < limit) return `${Math.floor(secs / unit)} ${name} ago`;
  return `${Math.floor(secs / 86400)} days ago`;
}

export function duration(secs) {
  if (secs < 9.95) return `${Math.max(0, secs).toFixed(secs < 0.995 ? 2 : 1)} s`;
  const whole = Math.round(secs);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return pair(Math.floor(whole / 60), "min", whole % 60, "s");
  const minutes = Math.round(secs / 60), hours = Math.round(secs / 3600);
  if (minutes < 2880) return pair(Math.floor(minutes / 60), "h", minutes % 60, "min");
  return pair(Math.floor(hours / 24), "d", hours % 24, "h");
}

const pair = (many, unit, few, part) => `${many} ${unit}${few ? ` ${few} ${part}` : ""}`;

// What is shown of the moment, once a second; a hidden page needs none of it.
export function tick() {
  if (!document.hidden)
    for (const time of document.querySelectorAll("time[data-ago], time[data-since]")) {
      const secs = (Date.now() - Date.parse(time.dateTime)) / 1000;
      const text = "ago" in time.dataset ? age(secs) : duration(Math.floor(secs) || secs);
      if (time.textContent !== text) time.textContent = text;
    }
  setTimeout(tick, 1000 - (Date.now() % 1000));
}
