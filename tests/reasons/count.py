"""How many logs of `tools/` have the reason that a person would name: `python -m tests.reasons.count`.

What differs is listed. `person` in a tool's file is what a person finds in the log, and no rule. Names are arguments; the default is all.
"""

from __future__ import annotations

import sys
from collections import Counter

from orchestrator.log_end import read_log_end
from states.log_reasons import MAX_LINES, find_reason
from tests.reasons.record import TOOLS, load


def main(names: list[str]) -> None:
    count: Counter[str] = Counter()
    for name in names or sorted(path.stem for path in TOOLS.glob("*.toml")):
        case = load(name)
        wanted = case["reason"]
        found = find_reason(read_log_end(TOOLS / f"{name}.log", lines=MAX_LINES).lines)
        if found == wanted:
            word = "right" if wanted else "missed" if "person" in case else "rightly none"
        else:
            word = "wrong" if found else "missed"
            print(f"{name}: {found!r} instead of {wanted!r}")
        count[word] += 1
    print(", ".join(f"{number} {word}" for word, number in count.items()))


if __name__ == "__main__":
    main(sys.argv[1:])
