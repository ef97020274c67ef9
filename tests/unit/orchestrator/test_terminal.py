"""What a guest printed, made harmless for a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.terminal import plain, styled

HOSTILE = [
    (b"\x1b]0;title\x07shown", "shown"),
    (b"\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
    (b"\x1b]0;never closed", ""),
    (b"\x1b[2J\x1b[Hshown", "shown"),
    (b"\x1b[?1049hshown", "shown"),
    (b"\x1bPq...\x1b\\shown", "shown"),
    (b"\x1bcshown", "shown"),
    (b"a\x08\x08b\x07", "ab"),
    (b"\xc2\x9b2Jshown", "2Jshown"),
    (b"\x1b[6n\x1b[5i", ""),
]


@pytest.mark.parametrize(("printed", "shown"), HOSTILE)
def test_what_steers_a_terminal_is_left_out(printed: bytes, shown: str) -> None:
    """Titles, links, cleared screens, other screens, answers that would be typed."""
    assert shown == styled(printed)


def test_colours_and_lines_stay() -> None:
    """What makes a log readable."""
    assert "\x1b[1;31mred\x1b[0m\n\tx" == styled(b"\x1b[1;31mred\x1b[0m\n\tx")


def test_a_message_is_one_plain_line() -> None:
    """Names and words of a guest in a message of ours: no colours, no line breaks."""
    assert "red next" == plain("\x1b[31mred\x1b[0m\nnext")


@given(st.binary(max_size=60))
def test_no_bytes_get_an_escape_through(data: bytes) -> None:
    """Whatever is printed, an ESC that is left begins a colour, and a message has none."""
    shown = styled(data)

    for piece in shown.split("\x1b")[1:]:
        head, separator, _ = piece.partition("m")
        assert separator
        assert head[0] == "["
        assert set(head[1:]) <= set("0123456789;:")
    assert plain(data.decode("utf-8", "replace")).isprintable()
