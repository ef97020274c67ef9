"""Makes the output of guests harmless for a terminal, a page or a message.

Bytes are decoded first; then everything that controls a terminal is removed from the characters. So
no control character can arise from separate bytes, or from bytes that are not UTF-8 (those become
U+FFFD). An ESC stays only at the start of a complete colour sequence. The work is linear: each
character is examined a bounded number of times, whatever surrounds it.
"""

from __future__ import annotations

import codecs
import re

# Patterns are text: they take 2 ms to compile, which most commands can save.
RESET = "\x1b[0m"
ESC = "\x1b"

# Most characters between `ESC [` and `m` of a colour; two 24-bit colours need 35.
MAX_COLOUR = 64
_COLOUR = rf"\[[0-9;:]{{0,{MAX_COLOUR}}}m"
# Controls except tab, line feed, carriage return and ESC; C1 controls; and direction marks, which
# are invisible. Joiners and variation selectors are part of words and emoji, and stay.
_INVISIBLE = r"\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f\u061c\u200e\u200f"
# These display text in a different order: embeddings, overrides, isolates, and deprecated ones.
# They are replaced, so that a reader sees them. Lone surrogates cannot be encoded.
_REORDERING = r"[\u202a-\u202e\u2066-\u206f\ud800-\udfff]"
# All such single characters that JSON does not escape.
STEERING_CHARACTERS = r"[\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f]"
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# Titles, links and the like, up to their end, a line break or the next sequence.
_STRING = r"[\]PX^_][^\x07\x18\x1a\x1b\n\r\x9c]*+"
_SEQUENCES = rf"\[[0-?]*+[ -/]*+[@-~]?|{_STRING}(?:[\x07\x9c]|\x1b\\)?|[ -/]*+[0-~]?"
# Moves to the start of the line; some progress bars use it.
_TO_BEGIN = r"\x1b\[[01]?G"
_STEERING = {
    True: rf"[{_INVISIBLE}]++|\x1b(?!{_COLOUR})(?:{_SEQUENCES})",
    False: rf"[{_INVISIBLE}]++|\x1b(?:{_SEQUENCES})",
}
# An unfinished sequence at the end of a piece.
_UNFINISHED = (
    rf"\x1b(?:(?P<colour>(?:\[[0-9;:]{{0,{MAX_COLOUR}}})?)|\[[0-?]*+(?P<last>[ -/]*+)"
    rf"|(?P<string>{_STRING})|(?P<other>[ -/]++))"
)
_LINE_BREAKS = r"[\n\r\u2028\u2029]"
_PIECE = 1 << 16


class TerminalFilter:
    """Makes a stream harmless, piece by piece. How it is split changes nothing.

    Printable text of every language, tabs, line feeds and carriage returns stay, and so do colours
    if `colours` is set. Everything else that controls a terminal is removed, and characters that
    reorder text become U+FFFD.
    """

    def __init__(self, *, colours: bool = True) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._steering = re.compile(_STEERING[colours])
        self._open = ""

    def feed(self, data: bytes) -> str:
        """Filter the next piece. An unfinished sequence at its end is held back."""
        # In small steps, so that hostile input costs little memory.
        return "".join(
            self.feed_text(self._decoder.decode(data[at : at + _PIECE]))
            for at in range(0, len(data), _PIECE)
        )

    def end(self) -> str:
        """Return the rest, without an unfinished sequence."""
        return self.feed_text(self._decoder.decode(b"", final=True))

    def feed_text(self, text: str) -> str:
        """Like `feed`, for characters."""
        text = self._open + text
        self._open = ""
        at = text.rfind(ESC)
        if at >= 0 and (unfinished := re.compile(_UNFINISHED).fullmatch(text, at)):
            text, self._open = text[:at], _shortest(unfinished)
        if ESC in text:
            text = re.sub(_TO_BEGIN, "\r", text)
        return re.sub(_REORDERING, REPLACEMENT, self._steering.sub("", text))


def _shortest(unfinished: re.Match[str]) -> str:
    """A short unfinished sequence that can end in the same ways."""
    if unfinished["colour"] is not None:
        return unfinished[0]
    if unfinished["string"]:
        return f"{ESC}]"
    if unfinished["other"]:
        return f"{ESC} "
    return f"{ESC}[ " if unfinished["last"] else f"{ESC}[?"


def styled(data: bytes, *, colours: bool = True) -> str:
    """Log bytes as text for a terminal: keeps colours, removes other control sequences."""
    shown = TerminalFilter(colours=colours)
    return shown.feed(data) + shown.end()


def plain(text: str) -> str:
    """Text as one line for a message or a page, without colours. Keeps tabs."""
    if text.isprintable():  # it has no controls, and nothing invisible
        return text
    shown = TerminalFilter(colours=False)
    return re.sub(_LINE_BREAKS, " ", shown.feed_text(text) + shown.end())


def plain_lines(text: str) -> str:
    """Text as several lines for a page or a file, each filtered by `plain`."""
    return "\n".join(plain(line) for line in text.splitlines())


def first_line(text: str) -> str:
    """The first line of a message, filtered by `plain`; may be empty."""
    return plain(text.strip().partition("\n")[0])


def last_state(line: bytes, *, colours: bool, most: int) -> str:
    """A line of a log as a terminal finally shows it: a carriage return starts it over.

    Cut to `most` characters; with colours, to about as many.
    """
    kept = re.sub(_TO_BEGIN.encode(), b"\r", line).rstrip(b"\r\n").rpartition(b"\r")[2]
    shown = styled(kept[: 4 * most], colours=colours).replace("\r", " ")
    return shown if colours else shown[:most]
