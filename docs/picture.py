"""Makes run.svg, the picture in README.md, from what the terminal of a real run shows.

    python -m docs.picture     # needs what `pikaci setup` makes; takes a minute

The picture has two sets of colours, and takes that of the page that it is on.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from html import escape
from itertools import groupby
from pathlib import Path

from pyte.screens import Char

from tests.terminal.screen import Terminal

FILE = Path(__file__).with_name("run.svg")
COLUMNS, LINES = 76, 40
SECS = "300"
PIKACI = Path(sys.executable).with_name("pikaci")
SIZE, WIDTH, HEIGHT, EDGE = 14, 8.43, 19, 16
# By the names that pyte has for a terminal's colours: on a light page, on a dark one.
COLOURS = {
    "red": ("#b3261e", "#ff8a80"),
    "green": ("#1a7f37", "#7ee787"),
    "brown": ("#8a5a00", "#e3b341"),
    "blue": ("#0550ae", "#79c0ff"),
    "magenta": ("#8250df", "#d2a8ff"),
    "cyan": ("#0b6e75", "#76e3ea"),
}
WORKSPACE = {
    "pikaci.toml": """
schema = 1

[jobs.deps]
command = "mkdir /artifacts/lib && g++ -c lib/six.cpp -o /artifacts/lib/six.o"
sources = ["lib"]
output = "/artifacts/lib"

[jobs.lint]
command = "python3 -m compileall -q ."
scratch = true

[jobs.test]
mounts = [{ source = { job = "deps" }, path = "/mnt/lib" }]
command = "python3 -m unittest -v test_price"

[jobs.program]
mounts = [{ source = { job = "deps" }, path = "/mnt/lib" }]
command = "g++ -I lib main.cpp /mnt/lib/six.o -o /artifacts/main && /artifacts/main"
artifacts = ["main"]

[jobs.publish]
needs = ["test", "program"]
command = "echo publishing"
""",
    "lib/six.cpp": '#include "six.h"\nint six() { return 6; }\n',
    "lib/six.h": "int six();\n",
    "main.cpp": '#include "six.h"\nint main() { return six() - 6; }\n',
    "test_price.py": """
import unittest


class Price(unittest.TestCase):
    def test_tax(self):
        self.assertEqual(119, round(100 * 1.19))

    def test_zero(self):
        self.assertEqual(0, int("0 EUR".split()[1]))
""",
}


def record(workspace: Path) -> Terminal:
    """The terminal of the second of two runs: the first has made the outputs that it reuses."""
    for name, text in WORKSPACE.items():
        file = workspace / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text.lstrip("\n"))
    with tempfile.TemporaryDirectory(prefix="pikaci-picture-root-") as root:
        for _ in range(2):
            terminal = Terminal(
                ["timeout", "--foreground", SECS, str(PIKACI), "run"],
                columns=COLUMNS,
                lines=LINES,
                cwd=workspace,
                env={"PIKACI_STATE_ROOT": root},
                real=True,
            )
            terminal.wait()
    return terminal


def picture(terminal: Terminal, command: str) -> str:
    """The screen as SVG, below the command line that was typed."""
    rows = [f'<tspan class="dim">$ </tspan><tspan class="bold">{escape(command)}</tspan>']
    rows += ["".join(_parts(terminal, number)) for number in range(len(terminal.shown))]
    width = round(terminal.screen.columns * WIDTH + 2 * EDGE)
    height = len(rows) * HEIGHT + 2 * EDGE
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"'
        f' width="{width}" height="{height}" role="img" aria-label="{escape(command)}">',
        f"<style>{_style()}</style>",
        f'<rect width="{width}" height="{height}" rx="8"/>',
        *(
            f'<text x="{EDGE}" y="{EDGE + HEIGHT * (number + 0.75):g}">{row}</text>'
            for number, row in enumerate(rows)
        ),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _parts(terminal: Terminal, row: int) -> Iterator[str]:
    """The parts of a line, each of one look."""
    line = terminal.screen.buffer[row]
    cells = [(column, line[column]) for column in range(terminal.screen.columns)]
    while cells and cells[-1][1].data == " ":
        cells.pop()
    for look, group in groupby(cells, key=lambda cell: _look(cell[1])):
        part = list(group)
        text = "".join(char.data for _, char in part)
        if text.strip():
            # Each has a place of its own: not every font is as wide as another.
            place = f' x="{EDGE + part[0][0] * WIDTH:g}"'
            yield f"<tspan{place}{look and f' class={look!r}'}>{escape(text)}</tspan>"


def _look(char: Char) -> str:
    colour = char.fg if char.fg in COLOURS else ""
    return " ".join(filter(None, (colour, "bold" if char.bold else "")))


def _style() -> str:
    def rules(dark: bool) -> str:
        back, front, dim = (
            ("#0d1117", "#e6edf3", "#8b949e") if dark else ("#f6f8fa", "#1f2328", "#59636e")
        )
        colours = "".join(f".{name}{{fill:{both[dark]}}}" for name, both in COLOURS.items())
        return f"rect{{fill:{back}}}text{{fill:{front}}}.dim{{fill:{dim}}}{colours}"

    font = f"text{{font:{SIZE}px ui-monospace,Menlo,Consolas,monospace;white-space:pre}}"
    dark = f"@media(prefers-color-scheme:dark){{{rules(True)}}}"
    return f"{font}.bold{{font-weight:bold}}{rules(False)}{dark}"


def main() -> None:
    """Run the jobs, and write the picture."""
    workspace = Path(tempfile.gettempdir(), "shop")  # its path is in the picture
    workspace.mkdir()
    try:
        FILE.write_text(picture(record(workspace), "pikaci run"), encoding="utf-8")
    finally:
        shutil.rmtree(workspace)


if __name__ == "__main__":
    main()
