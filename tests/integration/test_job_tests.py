"""Test reports of real guests."""

from __future__ import annotations

import pytest

from orchestrator.cli.summary import note, reason
from states.outcome import Verdict
from states.spec import JobSpec
from tests.integration.running import Runs

pytestmark = pytest.mark.incus

UNITTEST = """
cat >/artifacts/junit.xml <<'END'
<testsuites><testsuite name="s">
<testcase classname="c" name="test_a" time="0.5"/>
<testcase classname="c" name="test_b"><failure message="assert 1 == 2"/></testcase>
</testsuite></testsuites>
END
exit 1
"""
# A report in a directory that is not collected, a link to the host's files, and entities.
HOSTILE = """
mkdir /artifacts/other /artifacts/reports
echo '<testsuite><testcase name="no"/></testsuite>' >/artifacts/other/a.xml
ln -s /etc/passwd /artifacts/reports/link.xml
{ echo '<!DOCTYPE testsuite [<!ENTITY a0 "ha">'
  for n in $(seq 20); do printf '<!ENTITY a%d "&a%d;&a%d;">\\n' $n $((n - 1)) $((n - 1)); done
  echo ']><testsuite><testcase name="&a20;"/></testsuite>'; } >/artifacts/reports/bomb.xml
printf '<testsuite>%.0s' $(seq 1000) >/artifacts/reports/deep.xml
{ echo '<testsuite>'; head -c 17M /dev/zero | tr '\\0' ' '; } >/artifacts/reports/large.xml
echo '<testsuite><testcase name="yes"/></testsuite>' >/artifacts/reports/good.xml
"""


async def test_what_a_guest_s_report_says(runs: Runs) -> None:
    """The tests that failed are why the job did; the report came with the key `junit` alone."""
    job = (await runs.run({"test": JobSpec(command=UNITTEST, junit=("junit.xml",))}))["test"]

    assert Verdict.FAILED is job.verdict
    assert "1 of 2 tests failed, 1 artifact" == note(job)
    assert ["1 of 2 tests failed: test_b: assert 1 == 2 (exit code 1)"] == reason(job)[:1]


async def test_a_hostile_guest_s_reports_cost_warnings(runs: Runs) -> None:
    """Each that cannot be read is told; the others count, and the verdict is the command's."""
    specs = {"test": JobSpec(command=HOSTILE, junit=("reports/*",))}
    job = (await runs.run(specs))["test"]

    assert Verdict.PASSED is job.verdict
    assert job.tests is not None and 1 == job.tests.total
    whys = {
        "bomb.xml": "was not read: it has a document type, which may define entities",
        "deep.xml": "was not read: its elements are nested more than 64 deep",
        "large.xml": "was not read: it is larger than 16 MiB",
    }
    told = [warning for warning in job.warnings if warning.startswith("the test report")]
    assert [f"the test report reports/{name} {why}" for name, why in whys.items()] == told
    assert any(warning.endswith("reports/link.xml is a link") for warning in job.warnings)
