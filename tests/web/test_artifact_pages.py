"""Artifacts in the browser: seen safely, and downloaded as one archive."""

from __future__ import annotations

import html
import io
import os
import shutil
import tarfile
from pathlib import Path

import httpx
import pytest

from orchestrator import JobSpec
from orchestrator.fake_incus.guest import GuestCommand, GuestOutcome
from orchestrator.service import archive
from orchestrator.service.artifacts import list_artifacts
from orchestrator.service.types import Artifact
from orchestrator.service.web import views
from orchestrator.service.web.summaries import Summaries
from tests.samples import leave_artifacts
from tests.service.served import Served, open_served
from tests.web.test_html import EVIL, HTML, check_harmless

REPORT = (
    b"<testsuite name='s'><testcase name='test_a' time='1.5'/><testcase name='&lt;b&gt;'>"
    b"<failure message='&lt;script&gt;alert(1)&lt;/script&gt;'/></testcase></testsuite>"
)
PAGE = b"<script>top.location='//evil'</script><h1>coverage</h1>"
LONG = "d" * 90 + "/" + "n" * 200 + ".txt"
FILES = {
    "notes.txt": EVIL.encode(),
    "report.html": PAGE,
    "junit.xml": REPORT,
    "other.xml": b"<!DOCTYPE x [<!ENTITY a 'b'>]><testsuite>&a;</testsuite>",
    "picture.svg": b"<svg onload='alert(1)'/>",
    "shot.png": b"\x89PNG",
    "binary.bin": b"\0\1\2" * 100,
    "empty": b"",
    LONG: b"x" * 513,
    "caf\N{LATIN SMALL LETTER E WITH ACUTE}.txt": b"y",
}


async def job_with(served: Served, files: dict[str, bytes]) -> str:
    job: str = (await served.submit("true"))["id"]
    await served.orchestrator.job(job).wait()
    leave_artifacts(served.orchestrator.job(job).directory, files)
    return job


async def test_an_artifact_is_shown_as_text_or_sandboxed() -> None:
    """No script of its own runs in our origin, whatever it is, and nothing is sniffed."""
    async with open_served() as served:
        job = await job_with(served, FILES)
        page = (await served.http.get(f"/jobs/{job}", headers=HTML)).text
        answers = {
            name: await served.http.get(f"/jobs/{job}/artifacts/{name}", headers=HTML)
            for name in FILES
        }
        missing = [
            await served.http.get(f"/jobs/{job}/artifacts/{name}")
            for name in ("none", "%2e%2e/guest.log", "%2e%2e/%2e%2e/x.html", "", "a%00.png")
        ]

    check_harmless(page)
    assert [404] * 5 == [answer.status_code for answer in missing]
    assert all("nosniff" == one.headers["x-content-type-options"] for one in answers.values())
    for name in ("report.html", "shot.png"):
        found = answers.pop(name)
        policy = found.headers["content-security-policy"]
        assert policy.startswith("sandbox; default-src 'none';")
        assert "allow-" not in policy and "script-src" not in policy
        assert FILES[name] == found.content
        assert "no-referrer" == found.headers["referrer-policy"]
        assert "attachment" not in found.headers.get("content-disposition", "")
    for name, found in answers.items():
        check_harmless(found.text)
        assert "text/html; charset=utf-8" == found.headers["content-type"], name
        assert "sandbox" not in found.headers["content-security-policy"]
    assert "&lt;svg onload=" in answers["picture.svg"].text
    assert "This file is not text" in answers["binary.bin"].text
    assert "test_a" in answers["junit.xml"].text
    assert 'class="rows tests"' in answers["junit.xml"].text
    assert "&lt;b&gt;" in answers["junit.xml"].text
    # A report that may hurt is only text.
    assert "ENTITY" in answers["other.xml"].text


async def test_of_a_huge_text_the_beginning_is_shown() -> None:
    """However long its lines are."""
    async with open_served() as served:
        job = await job_with(served, {"log.txt": b"x" * (views.MAX_TEXT + 1) + b"END"})
        page = (await served.http.get(f"/jobs/{job}/artifacts/log.txt", headers=HTML)).text

    assert "This is the beginning" in page
    assert "END" not in page
    assert len(page) < views.MAX_TEXT + 8192


async def test_all_artifacts_are_one_archive() -> None:
    """In a directory of its own, with every name and byte, and a length that is right."""
    async with open_served() as served:
        job = await job_with(served, FILES)
        path = f"/v1/jobs/{job}/artifacts.tar"
        page = (await served.http.get(f"/jobs/{job}", headers=HTML)).text
        answer, head = await served.http.get(path), await served.http.head(path)
        none = await job_with(served, {})
        missing = await served.http.get(f"/v1/jobs/{none}/artifacts.tar")

    assert f'href="{path}"' in page
    assert f'attachment; filename="artifacts-{job}.tar"' == answer.headers["content-disposition"]
    assert answer.headers["content-length"] == head.headers["content-length"]
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as archive:
        found = {}
        for member in archive:
            content = archive.extractfile(member)
            assert member.isreg() and content is not None
            found[member.name] = content.read()
    assert {f"artifacts-{job}/{name}": data for name, data in FILES.items()} == found
    assert (404, "has no artifacts") == (missing.status_code, missing.json()["title"][-16:])


async def test_an_archive_that_cannot_be_made_whole_is_cut_off() -> None:
    """A file that is gone, or a link by now: the client sees that bytes are missing."""
    async with open_served() as served:
        job = await job_with(served, {"a": b"x" * 1000, "b": b"y" * 1000})
        there = served.orchestrator.job(job).directory / "artifacts"
        (there / "b").unlink()
        os.symlink("/etc/passwd", there / "b")
        with pytest.raises(httpx.RemoteProtocolError):
            await served.http.get(f"/v1/jobs/{job}/artifacts.tar")


async def test_what_gc_deletes_meanwhile_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two looks of one answer: that is no fault of the service."""

    def listed(directory: Path) -> list[Artifact]:
        files = list_artifacts(directory)
        shutil.rmtree(directory)
        return files

    async def nothing(summaries: Summaries, ids: object) -> list[object]:
        return []

    monkeypatch.setattr(archive, "list_artifacts", listed)
    monkeypatch.setattr(Summaries, "__call__", nothing)
    async with open_served() as served:
        job = await job_with(served, {"a": b"x"})
        page = await served.http.get(f"/jobs/{job}", headers=HTML)
        tar = await served.http.get(f"/v1/jobs/{job}/artifacts.tar")

    assert (404, 404) == (page.status_code, tar.status_code)


async def test_all_tests_of_a_job_have_a_page() -> None:
    """In pages, and by their outcome; a name is text."""
    count = views.MAX_CASES + 2
    cases = "".join(f"<testcase name='case {n}'/>" for n in range(count))
    report = f"<testsuite>{cases}<testcase name='&lt;img&gt;'><error/></testcase></testsuite>"

    async def script(command: GuestCommand) -> GuestOutcome:
        return GuestOutcome(1, {"junit.xml": report.encode()})

    async with open_served(guest_script=script) as served:
        spec = JobSpec(command="true", junit=("junit.xml",))
        job = (await served.orchestrator.submit(spec)).id
        await served.orchestrator.job(job).wait()
        job_page = (await served.http.get(f"/jobs/{job}", headers=HTML)).text
        first = (await served.http.get(f"/jobs/{job}/tests", headers=HTML)).text
        path = f"/jobs/{job}/tests?after={views.MAX_CASES}&amp;outcome="
        second = (await served.http.get(html.unescape(path), headers=HTML)).text
        bad = (await served.http.get(f"/jobs/{job}/tests?outcome=error", headers=HTML)).text
        wrong = await served.http.get(f"/jobs/{job}/tests?outcome=%3Cb%3E")

    assert f'href="/jobs/{job}/tests"' in job_page
    assert f'href="{path}"' in first
    assert (views.MAX_CASES, 3) == (
        first.count('<li class="row">'),
        second.count('<li class="row">'),
    )
    assert 1 == bad.count('<li class="row">')
    assert "&lt;img&gt;" in bad
    check_harmless(bad)
    assert 400 == wrong.status_code
