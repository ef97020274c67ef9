"""Globs mean the same in guest and host, and are matched in linear time."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.globs import GlobSet, any_of


@pytest.mark.parametrize(
    ("glob", "taken", "left"),
    [
        ("junit.xml", ["junit.xml"], ["junitxxml", "a/junit.xml"]),
        ("*.xml", ["a.xml", ".xml"], ["a/b.xml", "a.xmlx"]),
        ("reports/**", ["reports/a", "reports/b/c"], ["report/a", "xreports/a"]),
        ("**/*.xml", ["a.xml", "a/b/c.xml"], ["a.txt"]),
        ("reports", ["reports/deep/a"], ["reports2"]),
        ("a?c", ["abc"], ["a/c", "abbc"]),
        ("[a-c]x", ["bx"], ["dx"]),
        ("[!a]x", ["bx"], ["ax", "/x"]),
        ("a[", ["a["], ["a"]),
        ("a+(b)$^.|{1}\\", ["a+(b)$^.|{1}\\"], ["a", "aab"]),
        ("ü*", ["üb"], ["b"]),
    ],
)
def test_globs_mean_the_same_in_guest_and_host(
    tmp_path: Path, glob: str, taken: list[str], left: list[str]
) -> None:
    """What find takes in the guest is what the host takes."""
    for name in taken + left:
        path = tmp_path / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_dir():
            path.touch()
    names = sorted({*taken, *(name for name in left if not name.startswith("/"))})

    regex = rf"\./({any_of((glob,))})"
    find = ["find", ".", "-regextype", "posix-extended", "-regex", regex, "-type", "f", "-print0"]
    found = subprocess.run(find, cwd=tmp_path, capture_output=True, check=True)
    in_guest = {os.fsdecode(name)[2:] for name in found.stdout.split(b"\0") if name}

    on_host = {name for name in names if GlobSet((glob,)).takes(name)}
    assert set(taken) == on_host
    assert set(taken) == in_guest


def test_a_range_that_runs_backwards_is_plain_text() -> None:
    """It names the file of just that name, and crashes nothing."""
    assert GlobSet(["[z-a]"]).takes("[z-a]")
    assert not GlobSet(["[z-a]"]).takes("b")


GLOBS = st.lists(
    st.sampled_from(["**/", "**", "*", "?", "[ab]", "[!a]", "a", "b", "/", "."]), max_size=8
).map("".join)


@given(st.lists(GLOBS, max_size=3), st.text("ab./c", max_size=10))
def test_the_host_matches_as_the_expression_says(globs: list[str], path: str) -> None:
    """The guest's `find` goes by the expression, and the host by a matcher of its own."""
    expected = re.fullmatch(any_of(tuple(globs)), path, re.DOTALL) is not None

    assert expected == GlobSet(globs).takes(path)


@pytest.mark.parametrize("glob", ["*a" * 40 + "*b", "**/*a" * 20 + "b", "**a" * 40, "?*" * 100])
def test_a_hostile_name_is_matched_in_linear_time(glob: str) -> None:
    """A backtracking matcher takes these names for longer than anybody waits."""
    globs = GlobSet([glob])
    for name in ("a" * 1000, "a/" * 500, "ab" * 500 + "c", "é" * 1000):
        globs.takes(name)
