// Folds parts of a log: `::group::`, `##[group]`, and the sections of GitLab.

const DEEPEST = 20;
const COLOURS = "(?:\\x1b\\[[0-9;]*[mK])*";
const START = new RegExp(`^${COLOURS}(?:::group::|##\\[group\\])(.*)`);
const END = new RegExp(`^${COLOURS}(?:::endgroup::|##\\[endgroup\\])\\s*$`);
const SECTION = new RegExp(`^${COLOURS}section_(start|end):\\d{1,20}:([\\w.-]{1,200})(\\[[^\\]]{0,200}\\])?\\r?${COLOURS}(.*)`);

// What the beginning of a line says: {start, name, title, closed}, {end, name}, or null. Pure.
export function markOf(text) {
  const group = START.exec(text);
  if (group) return { start: true, name: null, title: group[1] || "group", closed: false };
  if (END.test(text)) return { end: true, name: null };
  const section = SECTION.exec(text);
  if (!section) return null;
  const [, kind, name, options, title] = section;
  if (kind === "end") return { end: true, name };
  return { start: true, name, title: title || name, closed: /collapsed=true/.test(options ?? "") };
}

export class Folds {
  // `log.lines` have a `mark`, a `node`, and the byte `at` which they begin.
  constructor(log, button) {
    this.log = log;
    this.button = button;
    this.clear();
    button.addEventListener("click", () => {
      const open = this.heads().some((line) => !this.isClosed(line));
      for (const line of this.heads()) this.closed.set(line.at, open);
      this.update();
    });
  }

  clear() {
    this.closed = new Map(); // by the byte at which a group begins
    this.any = false;
    this.button.hidden = true;
  }

  heads() { return this.log.lines.filter((line) => line.mark?.start); }
  isClosed(line) { return this.closed.get(line.at) ?? line.mark.closed; }

  // A button at the head of a group.
  head(line) {
    this.any = true;
    const button = document.createElement("button");
    button.className = "fold";
    button.type = "button";
    button.addEventListener("click", () => {
      this.closed.set(line.at, !this.isClosed(line));
      this.update();
    });
    line.fold = button;
    return button;
  }

  // Calls `visit(line, groups)` for each line, with the heads of the groups around it.
  walk(visit) {
    const groups = [];
    for (const line of this.log.lines) {
      if (line.mark?.end) {
        const at = groups.findLastIndex((head) => head.mark.name === line.mark.name);
        if (at >= 0) groups.length = at;
      }
      visit(line, groups);
      if (line.mark?.start && groups.length < DEEPEST) groups.push(line);
    }
  }

  update() {
    if (!this.any) return;
    this.button.hidden = false;
    this.walk((line, groups) => {
      line.node.hidden = Boolean(line.mark?.end) || groups.some((head) => this.isClosed(head));
      line.fold?.setAttribute("aria-expanded", String(!this.isClosed(line)));
      line.fold?.setAttribute("aria-label", `${this.isClosed(line) ? "unfold" : "fold"} ${line.mark.title.slice(0, 100)}`);
    });
    this.button.textContent = this.heads().some((line) => !this.isClosed(line)) ? "Fold all" : "Unfold all";
  }

  // Open the groups around a line.
  reveal(wanted) {
    if (!this.any) return;
    this.walk((line, groups) => {
      if (line === wanted) for (const head of groups) this.closed.set(head.at, false);
    });
    this.update();
    wanted.node.hidden = false;
  }
}
