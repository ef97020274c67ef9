"""What the guest's own command sends, run for real."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

from orchestrator.attempt.archive import collect_command
from orchestrator.units import size
from tests.unit.orchestrator.archives import MAX_BYTES, MAX_LOG_BYTES, archive, collect, tree


def test_the_guest_s_command_follows_no_link_and_waits_for_no_pipe(tmp_path: Path) -> None:
    """Run for real over a directory that a hostile job left."""
    artifacts = tmp_path / "artifacts"
    (artifacts / "reports").mkdir(parents=True)
    (artifacts / "result.json").write_bytes(b"{}")
    os.mkfifo(artifacts / "guest.log")
    os.mkfifo(artifacts / "reports" / "pipe")
    (artifacts / "reports" / "shadow").symlink_to("/etc/shadow")
    (artifacts / "reports" / "etc").symlink_to("/etc")
    (artifacts / "reports" / "two\nlines").touch()
    (artifacts / "reports" / "-rf").write_text("dash")
    (artifacts / "reports" / "empty").mkdir()
    command = collect_command(("reports/**",), want_log=True, max_log_bytes=MAX_LOG_BYTES)
    command[command.index("/artifacts")] = str(artifacts)

    done = subprocess.run(command, capture_output=True, timeout=30, stdin=subprocess.DEVNULL)
    base = tmp_path / "host"
    base.mkdir()
    collector, manifest = collect(base, done.stdout, "reports/**")

    assert b"{}" == collector.result
    assert not (base / "log").exists()
    assert {"reports/-rf": b"dash"} == tree(base)
    refused = {file.path: file.reason for file in manifest.refused}
    assert {
        "guest.log",
        "reports/pipe",
        "reports/shadow",
        "reports/etc",
        "reports/two\\nlines",
    } == (set(refused))


def guest_sends(artifacts: Path, *globs: str, max_bytes: int = 1 << 20) -> bytes:
    """What it prints over a directory, in place of the guest's."""
    command = collect_command(
        globs, want_log=True, max_bytes=max_bytes, max_log_bytes=MAX_LOG_BYTES
    )
    command[command.index("/artifacts")] = str(artifacts)
    done = subprocess.run(command, capture_output=True, timeout=30, stdin=subprocess.DEVNULL)
    return done.stdout


NAMES = [
    "plain",
    "a/b c",
    "caf\u00e9",
    "\u202f\u3000",
    "\u6f22\u5b57",
    "\U0001f469\u200d\U0001f4bb",
]


def test_every_printable_name_is_collected(tmp_path: Path) -> None:
    """Also of two hard links to one file, and long ones; `?` is one character, of any language."""
    left = tmp_path / "left"
    names = [*NAMES, "d/" * 60 + "e" * 150]
    for name in names:
        (left / name).parent.mkdir(parents=True, exist_ok=True)
        (left / name).write_text(name)
    os.link(left / "plain", left / "linked")

    _, manifest = collect(tmp_path, guest_sends(left, "**"), "**")
    _, some = collect(tmp_path / "some", guest_sends(left, "caf?"), "caf?")

    assert {"linked": "plain", **{name: name for name in names}} == {
        name: content.decode() for name, content in tree(tmp_path).items()
    }
    assert ("", ()) == (manifest.problem, manifest.refused)
    assert ["caf\u00e9"] == [file.path for file in some.files]


def test_what_cannot_be_collected_is_refused_by_name(tmp_path: Path) -> None:
    """Names that are no text, or not as they look; sockets; and what is too large to be sent."""
    left = tmp_path / "left"
    left.mkdir()
    for name in (b"caf\xe9.txt", b"rtl\xe2\x80\xaegnp.exe", b"tab\tname", b"c1\xc2\x9b2J"):
        (left / os.fsdecode(name)).touch()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(left / "socket"))
    (left / "guest.log").touch()
    os.truncate(left / "guest.log", 1 << 40)
    (left / "sparse").touch()
    os.truncate(left / "sparse", 1 << 40)
    (left / "result.json").write_bytes(b"{}")
    (left / "good").write_bytes(b"g")

    collector, manifest = collect(tmp_path, guest_sends(left, "**"), "**")

    assert b"{}" == collector.result
    assert {"good": b"g"} == tree(tmp_path)
    assert "" == manifest.problem
    assert {
        "caf\\xe9.txt": "has a name that is not UTF-8",
        "rtl\\u202egnp.exe": "has a name that cannot be printed",
        "tab\\tname": "has a name that cannot be printed",
        "c1\\x9b2J": "has a name that cannot be printed",
        "socket": "is not a regular file",
        "guest.log": f"is larger than {MAX_LOG_BYTES} bytes",
        "sparse": f"is larger than {size(MAX_BYTES)}",
    } == {refused.path: refused.reason for refused in manifest.refused}


def test_names_behind_an_archive_are_believed_as_little(tmp_path: Path) -> None:
    """They are shown, in bounded number, and name nothing as collected."""
    hostile = b"".join(b"f./n%d\x1b[2J\0" % number for number in range(5000))
    data = archive(("a", b"a", {})) + hostile + b"cut off"

    _, manifest = collect(tmp_path, data, "**")

    assert ["a"] == [file.path for file in manifest.files]
    assert 1000 == len(manifest.refused)
    assert "n0\\x1b[2J" == manifest.refused[0].path
    assert "refused" in manifest.problem
