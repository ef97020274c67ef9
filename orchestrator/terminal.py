"""What a guest printed, made harmless for a terminal, a page and a message.

Bytes are decoded first, and what could steer a terminal is left out of the characters. So no
control character can come from bytes that stood apart, or from bytes that are not UTF-8 (those
become U+FFFD). An ESC stays only where it begins a whole colour sequence. The work is linear:
each character is looked at a bounded number of times, whatever stands around it.
"""

from __future__ import annotations

import codecs
import re

RESET = "\x1b[0m"
ESC = "\x1b"

# A colour has at most so many characters between `ESC [` and `m`; two of 24 bits need 35.
MAX_COLOUR = 64
_COLOUR = rf"\[[0-9;:]{{0,{MAX_COLOUR}}}m"
# Controls but tab, line feed, return and ESC; C1 controls; and marks of direction, which nobody
# sees. Joiners and variation selectors are part of words and pictures, and stay.
_INVISIBLE = r"\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f\u061c\u200e\u200f"
# They show text in another order than it has: embeddings, overrides, isolates, and deprecated
# ones. A reader should see that they were there. Lone surrogates cannot be written at all.
_REORDERING = re.compile(r"[\u202a-\u202e\u2066-\u206f\ud800-\udfff]")
# All of them that are single characters and that JSON does not escape.
STEERING_CHARACTERS = re.compile(r"[\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f]")
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# A title, a link and their kind: to their end, or to where the line or a new sequence begins.
_STRING = r"[\]PX^_][^\x07\x18\x1a\x1b\n\r\x9c]*+"
_SEQUENCES = rf"\[[0-?]*+[ -/]*+[@-~]?|{_STRING}(?:[\x07\x9c]|\x1b\\)?|[ -/]*+[0-~]?"
# To the start of a line, as some progress bars write it.
_TO_BEGIN = re.compile(r"\x1b\[[01]?G")
_TO_BEGIN_BYTES = re.compile(rb"\x1b\[[01]?G")
_STEERING = {
    True: re.compile(rf"[{_INVISIBLE}]++|\x1b(?!{_COLOUR})(?:{_SEQUENCES})"),
    False: re.compile(rf"[{_INVISIBLE}]++|\x1b(?:{_SEQUENCES})"),
}
# What may stand at the end of a piece without its own end, and what stands for all of its kind.
_UNFINISHED = re.compile(
    rf"\x1b(?:(?P<colour>(?:\[[0-9;:]{{0,{MAX_COLOUR}}})?)|\[[0-?]*+(?P<last>[ -/]*+)"
    rf"|(?P<string>{_STRING})|(?P<other>[ -/]++))"
)
_LINE_BREAKS = re.compile(r"[\n\r\u2028\u2029]")
_PIECE = 1 << 16


class TerminalFilter:
    """Makes a stream harmless, piece by piece: how it is cut up changes nothing.

    Printable text of every language, tabs, line feeds and returns stay as they are, and so do
    colours when `colours` is set. Everything else that steers a terminal is left out, and what
    would reorder text becomes U+FFFD.
    """

    def __init__(self, *, colours: bool = True) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._steering = _STEERING[colours]
        self._open = ""

    def feed(self, data: bytes) -> str:
        """The next piece, without what it may have at its end of an unfinished sequence."""
        # In short pieces, so that a hostile one costs little memory.
        return "".join(
            self.feed_text(self._decoder.decode(data[at : at + _PIECE]))
            for at in range(0, len(data), _PIECE)
        )

    def end(self) -> str:
        """The rest; an unfinished sequence is left out."""
        return self.feed_text(self._decoder.decode(b"", final=True))

    def feed_text(self, text: str) -> str:
        """As `feed`, of characters."""
        text = self._open + text
        self._open = ""
        at = text.rfind(ESC)
        if at >= 0 and (unfinished := _UNFINISHED.fullmatch(text, at)):
            text, self._open = text[:at], _shortest(unfinished)
        if ESC in text:
            text = _TO_BEGIN.sub("\r", text)
        return _REORDERING.sub(REPLACEMENT, self._steering.sub("", text))


def _shortest(unfinished: re.Match[str]) -> str:
    """An unfinished sequence of bounded length with the same ends."""
    if unfinished["colour"] is not None:
        return unfinished[0]
    if unfinished["string"]:
        return f"{ESC}]"
    if unfinished["other"]:
        return f"{ESC} "
    return f"{ESC}[ " if unfinished["last"] else f"{ESC}[?"


def styled(data: bytes, *, colours: bool = True) -> str:
    """Log bytes as text for a terminal: colours stay, other control sequences are left out."""
    shown = TerminalFilter(colours=colours)
    return shown.feed(data) + shown.end()


def plain(text: str) -> str:
    """Text on one line for a message or a page, without colours; tabs stay."""
    shown = TerminalFilter(colours=False)
    return _LINE_BREAKS.sub(" ", shown.feed_text(text) + shown.end())


def plain_lines(text: str) -> str:
    """Text of several lines for a page or a file, each as `plain` has it."""
    return "\n".join(plain(line) for line in text.splitlines())


def first_line(text: str) -> str:
    """The first line of a message, as `plain` has it; empty when there is none."""
    return plain(text.strip().partition("\n")[0])


def last_state(line: bytes, *, colours: bool, most: int) -> str:
    """One line of a log as a terminal shows it in the end: a return begins it anew.

    Of a long one the start: `most` characters, or with colours about so many.
    """
    kept = _TO_BEGIN_BYTES.sub(b"\r", line).rstrip(b"\r\n").rpartition(b"\r")[2]
    shown = styled(kept[: 4 * most], colours=colours).replace("\r", " ")
    return shown if colours else shown[:most]
