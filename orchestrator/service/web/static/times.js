// Updates times. `units.py` formats them the same way when the page is rendered.

// By how much the reader's clock is behind the service's.
const behind = Number(document.documentElement.dataset.now) - Date.now();

export function age(secs) {
  for (const [least, unit, name] of [[172800, 86400, "d"], [3600, 3600, "h"], [60, 60, "min"], [5, 1, "s"]])
    if (secs >= least) return `${Math.floor(secs / unit)} ${name} ago`;
  return "just now";
}

export function duration(secs) {
  secs = Math.max(0, secs);
  const milliseconds = nearest(secs * 1000), tenths = nearest(secs * 10), whole = nearest(secs);
  if (milliseconds < 1000) return `${milliseconds} ms`;
  if (tenths < 100) return `${Math.floor(tenths / 10)}.${tenths % 10} s`;
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return pair(whole, 60, "min", "s");
  const minutes = nearest(secs / 60);
  return minutes < 2880 ? pair(minutes, 60, "h", "min") : pair(nearest(secs / 3600), 24, "d", "h");
}

const nearest = (value) => Math.floor(value + 0.5);

function pair(count, per, unit, part) {
  const few = count % per;
  return `${Math.floor(count / per)} ${unit}${few ? ` ${few} ${part}` : ""}`;
}

// Update once a second, unless the page is hidden.
export function tick() {
  if (!document.hidden)
    for (const time of document.querySelectorAll("time[data-ago], time[data-since]")) {
      const secs = (Date.now() + behind - Date.parse(time.dateTime)) / 1000;
      const text = "ago" in time.dataset ? age(secs) : duration(Math.floor(secs) || secs);
      if (time.textContent !== text) time.textContent = text;
    }
  setTimeout(tick, 1000 - (Date.now() % 1000));
}
