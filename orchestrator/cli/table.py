"""Columns of text that fit a terminal. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from orchestrator.cli.board import cut, pad, shorten
from orchestrator.cli.cells import cell_len
from orchestrator.cli.colours import DIM, Paint

GAP = 2


class Column(msgspec.Struct, frozen=True):
    """A column with a head. `codes` are the colours of its cells, if it has any.

    Where a terminal is narrow, columns give way in the order of `gives`, 0 never: one is shortened
    to `least` cells, and then left out unless it must `stay`.
    """

    head: str
    cells: Sequence[str]
    gives: int = 0
    least: int = 0
    stay: bool = False
    middle: bool = False
    right: bool = False
    codes: Sequence[str] = ()


def table(columns: Sequence[Column], width: int | None, paint: Paint, dots: str) -> list[str]:
    """A line of heads and one for each row, narrower than `width`; of any length if it is None.

    `dots` stands for what was left out in the middle of a cell.
    """
    widths = {
        place: max(map(cell_len, (column.head, *column.cells)))
        for place, column in enumerate(columns)
    }
    if width is not None:
        _fit(columns, widths, width - 1)
    heads = [_cell(columns[place], columns[place].head, widths[place], dots) for place in widths]
    lines = [paint(DIM, (" " * GAP).join(heads).rstrip())]
    for row in range(len(columns[0].cells)):
        cells = []
        for place, cells_wide in widths.items():
            column = columns[place]
            text = _cell(column, column.cells[row], cells_wide, dots)
            cells.append(paint(column.codes[row], text) if column.codes else text)
        lines.append((" " * GAP).join(cells).rstrip())
    return lines


def _fit(columns: Sequence[Column], widths: dict[int, int], room: int) -> None:
    """Make the columns narrower, or leave them out, until they fit."""
    giving = sorted((column.gives, place) for place, column in enumerate(columns) if column.gives)
    for _, place in giving:
        excess = sum(widths.values()) + GAP * (len(widths) - 1) - room
        if excess <= 0:
            return
        column = columns[place]
        if widths[place] - excess >= column.least > 0:
            widths[place] -= excess
        elif column.stay:
            widths[place] = min(widths[place], column.least)
        else:
            del widths[place]


def _cell(column: Column, text: str, cells: int, dots: str) -> str:
    text = shorten(text, cells, dots) if column.middle else cut(text, cells)
    return " " * (cells - cell_len(text)) + text if column.right else pad(text, cells)
