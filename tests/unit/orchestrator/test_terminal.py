"""What a guest printed, made harmless for a terminal."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from orchestrator import terminal
from orchestrator.log_end import BYTES, MAX_LINE, read_log_end
from orchestrator.terminal import TerminalFilter, first_line, plain, plain_lines, styled

HOSTILE = [
    (b"\x1b]0;title\x07shown", "shown"),
    (b"\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
    (b"\x1b]0;never closed", ""),
    (b"\x1b]0;never closed\nnext", "\nnext"),
    (b"\x1b]52;c;x\xc2\x9cshown", "shown"),
    (b"\x1b[2J\x1b[Hshown", "shown"),
    (b"\x1b[?1049hshown", "shown"),
    (b"\x1b[>4;2mshown", "shown"),
    (b"\x1b[ mshown", "shown"),
    (b"\x1bPq...\x1b\\shown", "shown"),
    (b"\x1bcshown", "shown"),
    (b"\x1b(0shown", "shown"),
    (b"a\x08\x08b\x07", "ab"),
    (b"\xc2\x9b2Jshown", "2Jshown"),
    (b"\x9b2Jshown", "\ufffd2Jshown"),
    (b"\302\000\2332Jshown", "\ufffd\ufffd2Jshown"),
    (b"\xc0\x9b\xe0\x80\x9bshown", "\ufffd\ufffd\ufffd\ufffd\ufffdshown"),
    (b"\x1b\x1b[\x00[2Jshown", "[2Jshown"),
    (b"\x1b[3\x1b[31mred", "\x1b[31mred"),
    (b"\x1b[6n\x1b[5i", ""),
    (b"\x1b[" + b"1" * 65 + b"mshown", "shown"),
    ("a\u202egnp.exe\u202c".encode(), "a\ufffdgnp.exe\ufffd"),
    ("a\u2066b\u2069\u200e\u200f\u061c".encode(), "a\ufffdb\ufffd"),
    (b"\x1b[2K\x1b[1Gagain", "\ragain"),
]
# What a terminal, a tab or a line is made of: everything else is a text, and stays.
TEXTS = [
    "tab\tand space\u00a0\u202f\u3000",
    "gr\u00fc\u00dfe, \u0416\u0438\u0437\u043d\u044c, \u6f22\u5b57, \ud55c\uad6d\uc5b4",
    "\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627",
    "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",  # Persian needs a joiner
    "\u0928\u092e\u0938\u094d\u0924\u0947 \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35",
    "\U0001f469\u200d\U0001f4bb\ufe0f \U0001f3f4\U000e0067\U000e007f",
    "\ue0b0 \uf8ff e\u0301",  # private use, as of terminal fonts; a combining accent
]
PIECES = st.lists(
    st.sampled_from(
        [
            *(printed for printed, _ in HOSTILE),
            *(text.encode() for text in TEXTS),
            *(bytes([byte]) for byte in range(256)),
            *(b"\x1b", b"[", b"]", b"\x1b[", b"\x1b]", b"\x1b\\", b"31", b";", b"m", b"\xe2\x80"),
        ]
    )
    | st.binary(max_size=6),
    max_size=30,
).map(b"".join)
BIDI = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def steering(shown: str, *, colours: bool) -> list[str]:
    """What steers a terminal in a text, by a reading of its own that knows no filter."""
    found, state, parameters = [], "ground", 0
    for char in shown:
        code = ord(char)
        if state == "escape":
            found += [] if char == "[" else [f"ESC {char!r}"]
            state, parameters = "colour", 0
        elif state == "colour":
            parameters += 1
            if char == "m" or char not in "0123456789;:" or parameters > 65:
                found += [] if char == "m" and parameters <= 65 else [f"CSI {char!r}"]
                state = "ground"
        elif char == "\x1b":
            found += [] if colours else ["ESC"]
            state = "escape"
        elif (code < 0x20 and char not in "\t\n\r") or 0x7F <= code < 0xA0 or char in BIDI:
            found.append(repr(char))
    return found + ([] if state == "ground" else ["unfinished"])


@pytest.mark.parametrize(("printed", "shown"), HOSTILE)
def test_what_steers_a_terminal_is_left_out(printed: bytes, shown: str) -> None:
    """Titles, links, cleared screens, other screens, answers that would be typed."""
    assert shown == styled(printed)


@pytest.mark.parametrize("text", TEXTS)
def test_text_of_every_language_stays_as_it_is(text: str) -> None:
    """In a log and in a message."""
    assert text == styled(text.encode()) == plain(text) == styled(text.encode(), colours=False)


def test_colours_and_lines_stay() -> None:
    """What makes a log readable."""
    assert "\x1b[1;31mred\x1b[0m\n\tx" == styled(b"\x1b[1;31mred\x1b[0m\n\tx")


def test_a_message_is_one_plain_line() -> None:
    """Names and words of a guest in a message of ours: no colours, no line breaks."""
    assert "red next" == plain("\x1b[31mred\x1b[0m\nnext")
    assert "a b c" == plain("a\u2028b\u2029c")
    assert "a\ufffd" == plain("a\udcff")
    assert "one\ntwo" == plain_lines("one\n\x1b[2Jtwo\n")
    assert ["one", "", ""] == [first_line(text) for text in ("\n one\ntwo", "", "\n")]


@given(PIECES, st.randoms(use_true_random=False))
@example(b"\x1b]x\x1b\\y", random.Random(1))
def test_no_bytes_get_a_control_sequence_through(data: bytes, cuts: random.Random) -> None:
    """However they are cut up, and however they are cut up the same text is shown."""
    for colours in (True, False):
        stream, shown, left = TerminalFilter(colours=colours), "", data
        while left:
            size = cuts.choice([1, 1, 2, 3, 7, 50])
            shown += stream.feed(left[:size])
            assert [] == steering(shown, colours=colours)
            left = left[size:]
        shown += stream.end()

        assert styled(data, colours=colours) == shown
        assert [] == steering(shown, colours=colours)
    line = plain(data.decode("utf-8", "replace"))
    assert [] == steering(line, colours=False)
    assert not set("\n\r\u2028\u2029") & set(line)


@given(st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), max_size=60))
def test_printable_characters_stay(text: str) -> None:
    """All that Unicode has."""
    assert text == plain(text) == styled(text.encode())


@pytest.mark.parametrize(
    "unit", [b"\x1b]", b"\x1b[", b"\x1b[0;", b"\x1b", b"\x1bP", b"\x1b[31m", b"\x00", b"\xc2\x9b"]
)
@pytest.mark.parametrize("size", [10_000, 40_000])
def test_the_work_is_linear(unit: bytes, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that comes in pieces: what is looked at again is no more than a short rest."""
    seen: list[int] = []
    real = re.compile(terminal._STEERING[True])

    class Counting:
        def sub(self, with_: str, text: str) -> str:
            seen.append(len(text))
            return real.sub(with_, text)

    stream = TerminalFilter()
    monkeypatch.setattr(stream, "_steering", Counting())
    data = unit * (size // len(unit))
    for at in range(0, len(data), 100):
        stream.feed(data[at : at + 100])
        assert len(stream._open) <= terminal.MAX_COLOUR + 2
    stream.end()

    assert sum(seen) <= len(data) + len(seen) * (terminal.MAX_COLOUR + 2)


@pytest.mark.parametrize("pattern", [*terminal._STEERING.values(), terminal._UNFINISHED])
def test_no_pattern_can_go_back(pattern: str) -> None:
    """Every repetition without a bound is possessive: it gives nothing back to be tried again."""
    without_sets = re.sub(r"\\.|\[\^?(?:\\.|[^\]\\])*\]", "S", pattern)
    assert {"+"} == set(re.findall(r"[*+](\+?)", without_sets))


# The end of a log.


def test_a_progress_bar_shows_its_last_state(tmp_path: Path) -> None:
    """And not instead of the line before it, which is the cause."""
    path = tmp_path / "guest.log"
    bar = b"".join(b"\r%3d %% [%s]" % (n // 10, b"#" * 900) for n in range(1001))
    path.write_bytes(b"error: the cause\n" + bar + b"\n")

    end = read_log_end(path)

    assert ["error: the cause", f"100 % [{'#' * 900}]"] == list(end.lines)
    assert not end.whole


def test_a_bar_that_moves_the_cursor_is_one_too(tmp_path: Path) -> None:
    """As package managers of JavaScript draw theirs."""
    path = tmp_path / "guest.log"
    path.write_bytes(b"".join(b"\x1b[2K\x1b[1G%d %%" % n for n in range(101)) + b"\nnext\n")

    assert ("100 %", "next") == read_log_end(path).lines


@given(log=PIECES)
def test_the_end_of_any_log_is_harmless(
    tmp_path_factory: pytest.TempPathFactory, log: bytes
) -> None:
    """With colours and without; each line is one line."""
    path = tmp_path_factory.mktemp("log") / "guest.log"
    path.write_bytes(log)

    for colours in (True, False):
        for line in read_log_end(path, colours=colours).lines:
            assert [] == steering(line, colours=colours)
            assert not set("\n\r") & set(line)


def test_the_end_of_a_log_has_a_bound(tmp_path: Path) -> None:
    """In characters together, and a line; a link in its place is not followed."""
    path, link = tmp_path / "guest.log", tmp_path / "link"
    path.write_bytes((b"x" * 5000 + b"\n") * 1000)
    link.symlink_to(path)

    end = read_log_end(path)

    assert {MAX_LINE} == {len(line) for line in end.lines}
    assert len(end.text) <= BYTES
    assert not end.whole
    assert () == read_log_end(link).lines == read_log_end(tmp_path / "none").lines
