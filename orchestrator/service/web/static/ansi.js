// Splits text with terminal colours into pieces with styles. Pure.

const STEERING = new RegExp([
  "\\x1b\\[([0-9;:]{0,64})m", // colours: the only sequence that is interpreted
  "\\x1b\\[[0-?]*[ -/]*[@-~]?", // CSI
  "\\x1b[\\]PX^_][^\\x07\\x18\\x1a\\x1b\\x9c]*(?:\\x07|\\x9c|\\x1b\\\\)?", // OSC, DCS, SOS, PM, APC
  "\\x1b[ -/]*[0-~]?", // other escapes
  "[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u061c\\u200e\\u200f]", // controls except tab, and direction marks
].join("|"), "g");
// They would show a line in a different order.
const REORDERING = /[\u202a-\u202e\u2066-\u206f]/g;

export const PLAIN = Object.freeze({});

// `text` is one line. Returns {pieces: [{text, style}], style}, with the style in which the next
// line starts. A style has: bold, dim, italic, underline, strike, reverse, and front and back: a
// number of the 16 colours, or a CSS colour.
export function parse(text, style = PLAIN) {
  const pieces = [];
  let from = 0;
  const add = (part) => { if (part) pieces.push({ text: part.replace(REORDERING, "\ufffd"), style }); };
  for (const found of text.matchAll(STEERING)) {
    add(text.slice(from, found.index));
    from = found.index + found[0].length;
    if (found[1] !== undefined) style = changed(style, found[1]);
  }
  add(text.slice(from));
  return { pieces, style };
}

const ON = { 1: "bold", 2: "dim", 3: "italic", 4: "underline", 7: "reverse", 9: "strike" };
const OFF = { 22: ["bold", "dim"], 23: ["italic"], 24: ["underline"], 27: ["reverse"], 29: ["strike"] };

function changed(style, parameters) {
  const next = { ...style };
  const words = parameters.split(";");
  while (words.length) {
    const [code, ...sub] = words.shift().split(":").map(Number);
    if (code === 0) for (const key of Object.keys(next)) delete next[key];
    else if (code === 21) next.underline = true;
    else if (code === 4 && sub[0] === 0) delete next.underline;
    else if (ON[code]) next[ON[code]] = true;
    else if (OFF[code]) for (const key of OFF[code]) delete next[key];
    else if (code === 38 || code === 48) colour(next, code === 38 ? "front" : "back", sub, words);
    else if (code === 39) delete next.front;
    else if (code === 49) delete next.back;
    else if (code >= 30 && code <= 37) next.front = code - 30;
    else if (code >= 40 && code <= 47) next.back = code - 40;
    else if (code >= 90 && code <= 97) next.front = code - 82;
    else if (code >= 100 && code <= 107) next.back = code - 92;
  }
  return next;
}

function colour(style, key, sub, words) {
  // 38;2;R;G;B and 38:2::R:G:B; the latter may have a colour space in the middle.
  const values = sub.length ? sub : words.splice(0, words[0] === "2" ? 4 : 2).map(Number);
  if (values[0] === 5) style[key] = indexed(byte(values[1]));
  else if (values[0] === 2) style[key] = rgb(values.slice(-3).map(byte));
}

const byte = (value) => Math.min(255, Math.max(0, Math.trunc(value) || 0));
const rgb = (values) => `rgb(${values.join(" ")})`;

function indexed(number) {
  if (number < 16) return number;
  if (number > 231) return rgb(Array(3).fill(8 + 10 * (number - 232)));
  const level = (value) => (value ? 55 + 40 * value : 0);
  const cube = number - 16;
  return rgb([Math.trunc(cube / 36), Math.trunc(cube / 6) % 6, cube % 6].map(level));
}

// The default colours, in style.css.
const PAPER = "#14181c", INK = "#d6dbe0";
const CLASSES = { bold: "b", dim: "d", italic: "i", underline: "u", strike: "s" };

// A piece as an element; output is only ever its text content.
export function element({ text, style }) {
  const span = document.createElement("span");
  span.textContent = text;
  for (const [key, name] of Object.entries(CLASSES)) if (style[key]) span.classList.add(name);
  let { front, back } = style;
  if (style.reverse) [front, back] = [back ?? PAPER, front ?? INK];
  if (typeof front === "number") span.classList.add(`f${front}`);
  else if (front) span.style.color = front;
  if (typeof back === "number") span.classList.add(`g${back}`);
  else if (back) span.style.backgroundColor = back;
  return span;
}
