# ruff: noqa: F401
"""What a local container keeps, a guest on another host keeps as well: by the same tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio

from orchestrator.hosts import OpenHost, open_hosts
from orchestrator.hosts.volumes import VolumeTrees
from orchestrator.image.derived import delete_images, images_of
from orchestrator.incus import Host
from orchestrator.journal import open_journal
from orchestrator.settings import open_incus
from tests.hosts.far_host import NAME, FarHost, far_host
from tests.integration.running import Runs
from tests.integration.test_bounds import (
    test_a_job_past_its_limit_has_its_own_verdict,
    test_a_job_that_prints_for_ever_is_timed_out_and_its_log_is_cut_off,
    test_an_archive_that_does_not_end_costs_no_verdict,
    test_artifacts_of_every_kind_are_collected_or_refused_by_name,
)
from tests.integration.test_hostile_guests import (
    test_a_frozen_guest_is_waited_for_up_to_the_host_s_limit,
    test_a_guest_that_is_thawed_goes_on,
    test_a_guest_that_somebody_deletes_is_no_test_failure,
)
from tests.integration.test_isolation import (
    test_a_job_cannot_use_up_the_descriptors_in_flight_of_another,
    test_no_guest_has_key_rings,
    test_no_guest_reads_the_kernel_s_log,
    test_no_root_of_a_guest_changes_a_file_that_snapshots_share,
    test_sockets_without_a_network_stay_in_the_guest,
)
from tests.integration.test_jobs import (
    test_a_forked_daemon_neither_delays_nor_outlives_the_job,
    test_a_guest_that_somebody_stops_is_no_test_failure,
    test_a_hostile_job_cannot_change_its_verdict,
    test_a_job_that_fills_its_disk_gets_its_own_verdict,
    test_a_job_that_powers_off_ends_itself_and_is_no_test_failure,
    test_a_job_that_runs_too_long_is_timed_out_with_its_log,
    test_a_mount_that_is_missing_in_the_guest_is_named,
    test_a_read_only_failure_names_the_way_out,
    test_artifacts_are_collected_on_failure_and_links_are_refused,
    test_every_byte_of_a_large_and_binary_log_arrives,
    test_exit_codes_are_the_command_s,
    test_limits_are_enforced,
    test_no_network_means_only_the_loopback_interface,
    test_scratch_makes_the_workspace_writable_for_the_job_alone,
    test_scratch_refuses_only_to_rename_a_directory_of_the_tree,
    test_the_command_arrives_byte_for_byte,
    test_the_command_s_environment,
    test_the_snapshot_is_read_only_and_readable,
    test_two_runs_at_once_share_nothing,
)
from tests.integration.test_outputs import (
    test_a_maker_with_sources_sees_nothing_else,
    test_a_tree_can_be_where_node_looks_for_it,
    test_a_tree_is_as_it_was_made,
    test_what_is_no_tree_makes_its_job_fail,
)
from tests.integration.tls_host import REMOTE, TlsHost, tls_host

pytestmark = [pytest.mark.incus, pytest.mark.hosts]


@pytest.fixture(scope="module")
def tls_of_all() -> Iterator[TlsHost]:
    # Room for the default disk of a job.
    with tls_host(pool_size="20GiB") as made:
        yield made


@pytest.fixture(scope="module")
def ssh_of_all() -> Iterator[FarHost]:
    with far_host() as made:
        yield made


@pytest.fixture(params=["tls", "ssh"])
async def there(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[OpenHost]:
    """A host of each kind."""
    if request.param == "ssh":
        far: FarHost = request.getfixturevalue("ssh_of_all")
        for name, value in far.environment.items():
            monkeypatch.setenv(name, value)
        async with open_hosts(open_incus()) as hosts:
            yield hosts.at(NAME)
        return
    tls_of_all: TlsHost = request.getfixturevalue("tls_of_all")
    incus = await tls_of_all.reached(tmp_path / "conf")
    host = Host(name="build", remote=REMOTE, project=tls_of_all.project, pool=tls_of_all.pool)
    yield OpenHost(host, incus, VolumeTrees(incus, host.pool))
    await trio.to_thread.run_sync(tls_of_all.clear)


@pytest.fixture
async def runs(tmp_path: Path, there: OpenHost) -> AsyncIterator[Runs]:
    """As that of the local tests, with the guests there."""
    made = Runs(tmp_path, there)
    yield made
    assert [] == await made.instances()
    with open_journal(made.root.journal) as journal:
        owner = journal.owner
    await delete_images(made.incus, await images_of(made.incus, owner))
