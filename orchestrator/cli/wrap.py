"""Long lines on a terminal, broken between words."""

from __future__ import annotations

from orchestrator.cli.cells import cell_len

MORE = "    "  # deeper than the lines below a reason


def wrap(text: str, width: int | None, indent: str) -> list[str]:
    """A line as one or several, each narrower than `width` unless a word is wider.

    Each begins with `indent` and the text's own spaces, all but the first with `MORE` too. Without
    a width it is one line.
    """
    if width is None:
        return [indent + text]
    words = text.lstrip().split(" ")
    indent += text[: len(text) - len(text.lstrip())]
    lines = [indent + words[0]]
    for word in words[1:]:
        if cell_len(lines[-1]) + 1 + cell_len(word) < width:
            lines[-1] += f" {word}"
        else:
            lines.append(indent + MORE + word)
    return lines
