"""docs/run.svg, the picture in the README, and what makes it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pyte

from docs.picture import FILE, picture

SVG = "{http://www.w3.org/2000/svg}"


def shown(text: str) -> list[str]:
    """The lines of a picture."""
    return ["".join(line.itertext()) for line in ElementTree.fromstring(text).iter(f"{SVG}text")]


def test_it_is_a_small_picture_of_a_run() -> None:
    """With colours for light and dark pages, and nothing that runs or loads."""
    text = FILE.read_text()

    lines = shown(text)
    assert "$ pikaci run" == lines[0]
    assert any("failed" in line for line in lines)
    assert "-> pikaci rerun --failed" == lines[-1]
    assert "prefers-color-scheme:dark" in text
    assert not any(word in text for word in ("<script", "href", "url(", "@import"))
    assert len(text) < 60_000


def test_a_screen_becomes_a_picture(tmp_path: Path) -> None:
    """Its colours, its columns, and signs that mean something in XML."""
    screen = pyte.HistoryScreen(20, 3)
    pyte.ByteStream(screen).feed(b"\x1b[1;31mred\x1b[0m    <&>\r\n\r\n  end")
    terminal: Any = SimpleNamespace(screen=screen, shown=["red    <&>", "", "  end"])

    text = picture(terminal, "a & b")

    assert ["$ a & b", "red    <&>", "", "  end"] == shown(text)
    parts = ElementTree.fromstring(text).findall(f"{SVG}text/{SVG}tspan")[2:]
    assert ["red bold", None, None] == [part.get("class") for part in parts]
    assert ["16", "41.29", "16"] == [part.get("x") for part in parts]
