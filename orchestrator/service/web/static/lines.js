// Splits bytes of a log into lines. Pure, except for `read` and `placeOf`, which ask the service.

// Only the two ends of a longer line are kept.
const END = 8 * 1024;
const MAX_TEXT = 4000;
const decoder = new TextDecoder();
const LF = 10;

// A line: where it begins (`at`) and what follows it (`end`), in bytes; its bytes, and how many
// were left out of the middle.
function line(at, bytes, end) {
  if (bytes.length <= 2 * END) return { at, end, bytes, without: 0 };
  return { at, end, bytes: join(bytes.slice(0, END), bytes.slice(-END)), without: bytes.length - 2 * END };
}

export function join(one, other) {
  if (!one.length) return other;
  const both = new Uint8Array(one.length + other.length);
  both.set(one);
  both.set(other, one.length);
  return both;
}

// The lines in bytes that start at `at`, at the start of a line. The last one may be unfinished
// (`open`).
export function split(bytes, at) {
  const lines = [];
  let from = 0;
  for (let to; (to = bytes.indexOf(LF, from)) >= 0; from = to + 1)
    lines.push(line(at + from, bytes.subarray(from, to), at + to + 1));
  const open = from < bytes.length ? line(at + from, bytes.subarray(from), at + bytes.length) : null;
  return { lines, open };
}

// An unfinished line, with more bytes appended.
export function longer(open, bytes) {
  const grown = join(open.bytes, bytes);
  const kept = line(open.at, grown, open.end + bytes.length);
  return { ...kept, without: open.without + kept.without };
}

export function breaks(bytes) {
  let count = 0;
  for (let at = -1; (at = bytes.indexOf(LF, at + 1)) >= 0;) count += 1;
  return count;
}

// Some progress bars return to the start of the line with an escape sequence.
const decoded = (bytes) => decoder.decode(bytes).replace(/\x1b\[[01]?G/g, "\r").replace(/\r+$/, "");

// What a line begins with, before any carriage return is applied.
export const beginning = ({ bytes }) => decoder.decode(bytes.subarray(0, 600));

// What a terminal finally shows of a line: a carriage return starts it over.
export function text({ bytes, without }) {
  if (without) {
    const last = decoded(bytes.subarray(END));
    const back = last.lastIndexOf("\r");
    if (back >= 0) return { text: last.slice(back + 1, back + 1 + MAX_TEXT), cut: 0 };
  }
  const whole = decoded(without ? bytes.subarray(0, END) : bytes);
  const shown = whole.slice(whole.lastIndexOf("\r") + 1);
  const more = without ? without + END : 0;
  return { text: shown.slice(0, MAX_TEXT), cut: more + Math.max(0, shown.length - MAX_TEXT) };
}

// Reads a job's log, by bytes and by lines.
export class Source {
  constructor(job) {
    this.address = `/v1/jobs/${encodeURIComponent(job)}/log`;
  }

  // {bytes, at, size} of an HTTP range, such as "0-99" or "-100".
  async read(range) {
    const answer = await fetch(this.address, {
      headers: { Range: `bytes=${range}` }, cache: "no-store",
    });
    const said = /(\d+)?-?\d*\/(\d+)$/.exec(answer.headers.get("Content-Range") ?? "");
    if (answer.status === 416) return { bytes: new Uint8Array(), at: Number(said?.[2] ?? 0), size: Number(said?.[2] ?? 0) };
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    const bytes = new Uint8Array(await answer.arrayBuffer());
    return { bytes, at: Number(said?.[1] ?? 0), size: Number(said?.[2] ?? bytes.length) };
  }

  // {line, byte} of a line, or of the line that holds a byte.
  async place(asked) {
    const answer = await fetch(`${this.address}/place?${new URLSearchParams(asked)}`, { cache: "no-store" });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    return answer.json();
  }

  // {lines, open, first, size} of bytes that were read: `first` is the number of the first line. If the
  // bytes begin within a line, it is left out; but a line longer than all the bytes is shown by its
  // two ends.
  async lines({ bytes, at, size }) {
    if (at === 0) return { ...split(bytes, 0), first: 1, size };
    const { line: number, byte } = await this.place({ byte: at });
    if (byte === at) return { ...split(bytes, at), first: number, size };
    const cut = bytes.indexOf(LF) + 1;
    if (cut && cut < bytes.length)
      return { ...split(bytes.subarray(cut), at + cut), first: number + 1, size };
    const body = cut ? bytes.subarray(0, -1) : bytes;
    const head = (await this.read(`${byte}-${byte + END - 1}`)).bytes;
    const tail = body.slice(-END);
    const long = {
      at: byte, end: at + bytes.length, bytes: join(head, tail),
      without: at + body.length - byte - head.length - tail.length,
    };
    return { lines: cut ? [long] : [], open: cut ? null : long, first: number, size };
  }
}
