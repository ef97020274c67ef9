// Parses server-sent events from bytes, however those are split.

// The service sends something every 15 s.
export const QUIET_MS = 45000;

export class Frames {
  constructor() { this.clear(); }

  // Drop what a lost connection left unfinished: it is sent again.
  clear() {
    this.text = "";
    this.decoder = new TextDecoder();
  }

  // The fields of each event that is now complete. A comment has none.
  take(bytes) {
    const parts = (this.text + this.decoder.decode(bytes, { stream: true })).split("\n\n");
    this.text = parts.pop();
    return parts.map(fields);
  }
}

function fields(part) {
  const found = {};
  for (const line of part.split("\n")) {
    const colon = line.indexOf(": ");
    if (colon > 0) found[line.slice(0, colon)] = line.slice(colon + 2);
  }
  return found;
}

export function fromBase64(text) {
  return Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
}
