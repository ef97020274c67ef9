"""Long lines on a terminal: broken between words, with nothing lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.cli.cells import cell_len
from orchestrator.cli.wrap import MORE, wrap

WORDS = st.lists(st.text("abé価 ", min_size=1, max_size=12).map(str.strip), max_size=20)


@given(WORDS.map(" ".join).map(str.strip), st.integers(1, 60), st.sampled_from(["", "  "]))
def test_lines_are_narrow_and_have_every_word(text: str, width: int, own: str) -> None:
    """Only a word that is too wide makes a line too wide."""
    lines = wrap(own + text, width, "    ")

    start = f"    {own}"
    assert all(line.startswith(start if n == 0 else start + MORE) for n, line in enumerate(lines))
    told = [
        line.removeprefix(start).removeprefix(MORE if n else "") for n, line in enumerate(lines)
    ]
    assert text == " ".join(told)
    wide = [said for line, said in zip(lines, told, strict=True) if cell_len(line) >= width]
    assert not any(" " in said for said in wide)


def test_without_a_width_it_is_one_line() -> None:
    """So is what fits."""
    text = "a word " * 99

    assert [f"  {text}"] == wrap(text, None, "  ")
    assert ["  ab cd"] == wrap("ab cd", 8, "  ")
    assert ["  ab", "      cd"] == wrap("ab cd", 7, "  ")
