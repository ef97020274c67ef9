"""The width of texts on a terminal is what rich says, also where rich is not asked."""

import rich.cells
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.cli.cells import cell_len, set_cell_size

SOME = st.text() | st.text(st.characters(max_codepoint=0x7F))


@given(SOME)
def test_a_text_has_rich_s_width(text: str) -> None:
    """Control characters take no cell, and wide ones two."""
    assert rich.cells.cell_len(text) == cell_len(text)


@given(SOME, st.integers(0, 12))
def test_a_text_is_cut_as_rich_cuts_it(text: str, cells: int) -> None:
    """Or filled up with spaces."""
    assert rich.cells.set_cell_size(text, cells) == set_cell_size(text, cells)
