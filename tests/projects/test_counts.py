"""What the tools print at the end, counted; and sources that are not what was asked for."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import msgspec
import pytest

from tests.projects import fetch as fetching
from tests.projects.counts import count
from tests.projects.fetch import WrongSources, fetch
from tests.projects.project import projects

OUTPUTS = [
    ("pytest", "x\n= \x1b[31m4 failed\x1b[0m, 613 passed, 18 warnings in 79.45s (0:01:19) =\n",
     {"failed": 4, "passed": 613}),
    ("pytest", "2434 passed, 24 skipped, 31000 deselected, 1 xfailed in 6.57s\n",
     {"passed": 2434, "skipped": 24, "xfailed": 1}),
    ("tap", "ok 1 a\n# tests 3\n# pass  2\n# fail  1\n", {"passed": 2, "failed": 1}),
    ("ctest", "95% tests passed, 1 tests failed out of 19\n", {"passed": 18, "failed": 1}),
    ("automake", "# TOTAL: 5\n# PASS:  4\n# SKIP:  1\n# FAIL:  0\n", {"passed": 4, "skipped": 1}),
    ("cargo", "test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured\n"
     "test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured\n",
     {"passed": 3, "failed": 1, "skipped": 1}),
    ("xmltest", "\nPass 463, Fail 0\n", {"passed": 463}),
]  # fmt: skip


@pytest.mark.parametrize(("tool", "output", "expected"), OUTPUTS)
def test_results_are_counted(tool: str, output: str, expected: dict[str, int]) -> None:
    """All summaries are added; kinds of which there are none are left out."""
    assert expected == count(tool, output)


def test_an_output_without_a_summary_is_no_result() -> None:
    """A suite that crashed must not count as one without failures."""
    with pytest.raises(ValueError, match="no summary of pytest"):
        count("pytest", "INTERNALERROR")


def test_sources_with_another_hash_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in the cache: what was changed there is downloaded anew."""
    project = projects()["h11"]

    def download(_: object, into: Path) -> None:
        (into / "h11.tar.gz").write_bytes(b"another")

    monkeypatch.setitem(fetching._CLIENTS, "pip", download)
    with pytest.raises(WrongSources, match="no file has the hash"):
        fetch(project, tmp_path)
    assert [] == list(tmp_path.iterdir())

    good = msgspec.structs.replace(project, sha256=sha256(b"another").hexdigest())
    kept = fetch(good, tmp_path)
    kept.write_bytes(b"changed")

    assert b"another" == fetch(good, tmp_path).read_bytes()
