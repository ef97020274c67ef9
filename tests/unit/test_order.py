"""Every test is run, whatever the order is."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tests.order import spread


@given(st.lists(st.booleans()))
def test_no_test_is_lost_and_both_kinds_keep_their_order(waits: list[bool]) -> None:
    """Also where there are tests of one kind only."""
    ordered = spread(range(len(waits)), waits.__getitem__)

    assert sorted(ordered) == list(range(len(waits)))
    for kind in (True, False):
        numbers = [number for number in ordered if waits[number] is kind]
        assert sorted(numbers) == numbers


def test_those_that_wait_are_never_side_by_side_while_there_are_others() -> None:
    """And the last ones are not among them."""
    ordered = spread(range(100), lambda number: number < 20)
    waiting = [place for place, number in enumerate(ordered) if number < 20]

    assert all(4 <= after - before <= 5 for before, after in itertools.pairwise(waiting))
    assert waiting[-1] < 92


def test_one_worker_runs_all_tests_of_a_group(tmp_path: Path) -> None:
    """What is dear is then made once; some versions of pytest and its plugin do not fit together."""
    (tmp_path / "test_group.py").write_text(
        "import os, pathlib, pytest\n"
        "@pytest.mark.xdist_group('dear')\n"
        "@pytest.mark.parametrize('n', range(6))\n"
        "def test_it(n):\n"
        f"    (pathlib.Path({str(tmp_path)!r}) / f'ran-{{n}}').write_text(\n"
        "        os.environ['PYTEST_XDIST_WORKER'])\n"
    )
    argv = [sys.executable, "-m", "pytest", "-c", os.devnull, "--rootdir", str(tmp_path)]
    argv += ["-p", "no:cacheprovider", "-p", "xdist", "-n", "2", "--dist", "loadgroup"]
    env = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # others take seconds to load
    done = subprocess.run(
        [*argv, str(tmp_path)], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120
    )
    workers = [path.read_text() for path in tmp_path.glob("ran-*")]

    assert 0 == done.returncode, done.stdout
    assert (6, 1) == (len(workers), len(set(workers)))
