"""What holds for jobs in containers holds in virtual machines: the same tests, one a row."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration import test_jobs as jobs
from tests.integration import test_outputs as outputs
from tests.integration.running import Runs

pytestmark = pytest.mark.vm

Body = Callable[..., Awaitable[None]]
USER, ROOT = {"root": False}, {"root": True}
ROWS: dict[str, tuple[Body, dict[str, Any]]] = {
    "read-only, mode 600, user": (jobs.test_the_snapshot_is_read_only_and_readable, USER),
    "read-only, mode 600, root": (jobs.test_the_snapshot_is_read_only_and_readable, ROOT),
    "command": (jobs.test_the_command_arrives_byte_for_byte, {}),
    "environment, user": (jobs.test_the_command_s_environment, USER),
    "environment, root": (jobs.test_the_command_s_environment, ROOT),
    "no network": (jobs.test_no_network_means_only_the_loopback_interface, {}),
    "timeout, TERM ignored": (jobs.test_a_job_that_runs_too_long_is_timed_out_with_its_log, {}),
    "log, large and binary": (jobs.test_every_byte_of_a_large_and_binary_log_arrives, {}),
    "daemon left behind": (jobs.test_a_forked_daemon_neither_delays_nor_outlives_the_job, {}),
    "power off by the job": (
        jobs.test_a_job_that_powers_off_ends_itself_and_is_no_test_failure,
        {},
    ),
    "stopped by somebody": (jobs.test_a_guest_that_somebody_stops_is_no_test_failure, {}),
    "forged verdict": (
        jobs.test_a_hostile_job_cannot_change_its_verdict,
        {"attack": "ln -s /etc/passwd /artifacts/result.json", "root": True},
    ),
    "artifacts": (jobs.test_artifacts_are_collected_on_failure_and_links_are_refused, {}),
    "output of another job": (outputs.test_a_tree_is_as_it_was_made, {}),
}


@pytest.mark.parametrize("row", ROWS)
async def test_as_in_a_container(row: str, runs: Runs) -> None:
    """See the test that it names."""
    body, options = ROWS[row]

    await body(runs, **options)


async def test_devices(runs: Runs, tmp_path: Path) -> None:
    """The optional devices and a mount of the user's own."""
    await jobs.test_all_devices_stand_at_their_paths_and_are_read_only(runs, tmp_path)


@pytest.mark.two_at_once
async def test_two_runs_at_once(runs: Runs) -> None:
    """Two machines beside each other."""
    await jobs.test_two_runs_at_once_share_nothing(runs)
