"""How many cells of a terminal a text takes."""

from __future__ import annotations


def cell_len(text: str) -> int:
    """The cells of a text: some characters take two, some none."""
    if text.isascii() and text.isprintable():
        return len(text)
    from rich import cells  # here: most texts do not need its tables

    return cells.cell_len(text)


def set_cell_size(text: str, cells: int) -> str:
    """The text in exactly so many cells: cut at its end, or with spaces behind it."""
    if text.isascii() and text.isprintable():
        return text[:cells].ljust(cells)
    from rich.cells import set_cell_size

    return set_cell_size(text, cells)
