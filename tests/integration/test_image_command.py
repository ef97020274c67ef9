"""`pikaci image` as a person types it, on the real Incus, with stand-ins for nix and mmdebstrap."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import forks
from tests.integration.test_image import KEPT, image_file

pytestmark = pytest.mark.incus
ALIAS = f"test/command-{os.getpid()}"
NIXOS = "pikaci/nixos"


def pikaci(*args: str, path: str | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PATH": path or os.environ["PATH"], **env}
    return forks.run(["image", *args], timeout=120, env=variables, cwd=Path.cwd(), text=True)


def listed() -> dict[str, dict[str, object]]:
    """The images by each of their aliases."""
    found = json.loads(pikaci("list", "--output", "json").stdout)
    return {alias: image for image in found for alias in image["aliases"]}


INCUS = ("incus", "image", "--project", "pikaci")


def remove(alias: str) -> None:
    """The image with this alias, if there is one. `pikaci` itself starts slowly."""
    list_command = [*INCUS, "list", "local:", "--format", "json"]
    found = subprocess.run(list_command, check=True, capture_output=True, timeout=60).stdout
    for image in json.loads(found):
        if alias in [entry["name"] for entry in image["aliases"]]:
            subprocess.run([*INCUS, "delete", image["fingerprint"]], check=True, timeout=60)


@pytest.fixture(autouse=True)
def clean(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """No image of a test stays; and none waits for another test's build."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    yield
    remove(ALIAS)


@pytest.fixture
def clean_of_nixos() -> Iterator[None]:
    """An image of that name that was there stays."""
    there = NIXOS in listed()
    yield
    if not there:
        remove(NIXOS)


def test_import_and_list(tmp_path: Path) -> None:
    """A file gets its name, and is in the list; twice is no error."""
    file = image_file(tmp_path, "one", **KEPT)
    imported = [pikaci("import", str(file), "--alias", ALIAS) for _ in range(2)]
    image = listed()[ALIAS]
    table = pikaci("list").stdout

    said = f"{ALIAS} is {str(image['fingerprint'])[:12]}\n"
    assert [(0, said, "")] * 2 == [(one.returncode, one.stdout, one.stderr) for one in imported]
    assert (True, "container") == (image["usable"], image["type"])
    assert f"{ALIAS:24}" in table


BAD_FILES = {
    "missing": (lambda base: [base / "no"], "no cannot be read: No such file or directory"),
    "a directory": (lambda base: [base], " is not a file"),
    "a pipe": (lambda base: [pipe(base)], "pipe is not a file"),
    "a loop": (lambda base: [loop(base)], "cannot be read: Too many levels of symbolic links"),
    "hostile": (lambda base: [base / "\x1b[2J"], "cannot be read: No such file or directory"),
    "too long": (lambda base: [base / ("x" * 300)], "cannot be read: File name too long"),
    "an option": (lambda base: [Path("--"), Path("-x")], "-x cannot be read: No such file"),
    "three": (lambda base: [base] * 3, "an image is one file or two, not 3"),
    "none": (lambda base: [], "an image is one file or two, not 0"),
}


def pipe(base: Path) -> Path:
    os.mkfifo(base / "pipe")
    return base / "pipe"


def loop(base: Path) -> Path:
    (base / "loop").symlink_to("loop")
    return base / "loop"


@pytest.mark.parametrize("how", BAD_FILES)
def test_what_is_no_file(tmp_path: Path, how: str) -> None:
    """Exit code 2 and one line with the name and the reason; then what to do."""
    files, problem = BAD_FILES[how]
    done = pikaci("import", "--alias", ALIAS, *map(str, files(tmp_path)))
    first, *rest = done.stderr.splitlines()

    assert 2 == done.returncode
    assert problem in first
    assert 1 == len(rest)
    assert "\x1b" not in done.stderr


@pytest.mark.parametrize("alias", ["", "../x", "a:b", "a b", "-x", "x" * 300])
def test_what_is_no_alias(tmp_path: Path, alias: str) -> None:
    """A name that no job could give is refused before anything is imported."""
    file = image_file(tmp_path, "named", **KEPT)
    done = pikaci("import", str(file), f"--alias={alias}")

    assert 2 == done.returncode
    assert "is not a valid image alias" in done.stderr.splitlines()[0]


def nix(base: Path, body: str, *, name: str = "nix") -> str:
    """A search path on which `nix`, or `name`, is this script, and all else as it was."""
    program = base / "bin" / name
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!{sys.executable}\nimport pathlib, sys, time\n{body}")
    program.chmod(0o755)
    return f"{program.parent}:{os.environ['PATH']}"


@pytest.mark.usefixtures("clean_of_nixos")
def test_a_nixos_image(tmp_path: Path) -> None:
    """nix is asked for metadata and disk, and what it built is imported, under the image's name."""
    store = tmp_path / "store"
    (store / "metadata/tarball").mkdir(parents=True)
    (store / "metadata/nix-support").mkdir()
    (store / "metadata/nix-support/hydra-build-products").write_text("x")
    metadata = image_file(tmp_path, "nixos", **KEPT)
    metadata.rename(store / "metadata/tarball/nixos.tar")
    squashfs = ["mksquashfs", str(tmp_path / "bin"), str(store / "disk"), "-quiet", "-no-progress"]
    path = nix(
        tmp_path,
        f"print('{store}/metadata'); print('{store}/disk')\n"
        f"pathlib.Path('{tmp_path}/asked').write_text(repr(sys.argv[1:]))\n",
    )
    subprocess.run(squashfs, check=True, capture_output=True, timeout=60)
    done = pikaci("build", "--nixos", "container", "--flake", "/some/tree", path=path)
    image = listed()[NIXOS]

    assert 0 == done.returncode, done.stderr
    assert done.stdout.endswith(f"{NIXOS} is {str(image['fingerprint'])[:12]}\n")
    assert ("container", True) == (image["type"], image["usable"])
    asked = (tmp_path / "asked").read_text()
    assert "'/some/tree#incus-container-metadata', '/some/tree#incus-container-image']" in asked
    assert asked.startswith("['build', ")


def test_without_nix(tmp_path: Path) -> None:
    """One clear line, and the way out; nothing is made."""
    done = pikaci("build", "--nixos", "vm", "--flake", "/x", path=str(tmp_path))

    assert 4 == done.returncode
    assert [
        "pikaci: the command nix is not installed; it builds the NixOS image",
        "  -> install Nix; or build the image elsewhere, then run:"
        " `pikaci image import METADATA DISK --alias NAME`",
    ] == done.stderr.splitlines()


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("sys.exit('error: no such flake')", "error: no such flake"),
        ("print('/nowhere')", "nix built 1 outputs"),
        ("print('/nowhere'); print('/nowhere')", "/nowhere has 1 files"),
        (f"print('{Path(__file__).parent}'); print('/x')", "files, but an image has one there"),
    ],
)
def test_nix_fails(tmp_path: Path, body: str, says: str) -> None:
    """What it said is shown; no image changes."""
    done = pikaci("build", "--nixos", "vm", "--flake", "/x", path=nix(tmp_path, body))

    assert 4 == done.returncode
    assert says in done.stderr


# Takes the place of mmdebstrap: runs the hooks but the last, which is ours, and makes an archive.
MMDEBSTRAP = """
import subprocess, tarfile
hooks = [a.partition("=")[2] for a in sys.argv if a.startswith("--customize-hook=")]
for hook in hooks[:-1]:
    subprocess.run(["sh", "-c", hook, "exec", "/the/root"], check=True)
with tarfile.open(sys.argv[-2], "w") as archive:
    archive.addfile(tarfile.TarInfo("./etc"))
(include,) = [a for a in sys.argv if a.startswith("--include=")]
pathlib.Path(BASE, "asked").write_text(include)
"""
CHROOT = """
import os
pathlib.Path(BASE, "chroot").write_text(sys.argv[1])
os.execv(sys.argv[2], sys.argv[2:])
"""


def test_an_image_of_ones_own(tmp_path: Path) -> None:
    """More packages and lines, byte for byte as they were given; its document on stdout."""
    base = f"BASE = {str(tmp_path)!r}\n"
    path = nix(tmp_path, base + MMDEBSTRAP, name="mmdebstrap")
    nix(tmp_path, base + CHROOT, name="chroot")
    lines = [f"""printf '%s' "it's $HOME" >{tmp_path}/{n}; echo {n}""" for n in ("one", "two")]
    options = ["--package", "libssl-dev", "--package", "g++-12", "--alias", ALIAS]
    options += [word for line in lines for word in ("--run", line)]
    done = pikaci("build", *options, "--output", "json", path=path)
    image = listed()[ALIAS]

    row = {"alias": ALIAS, "fingerprint": image["fingerprint"]}
    assert (0, [row]) == (done.returncode, json.loads(done.stdout)), done.stderr
    assert str(image["description"]).endswith(", customized")
    assert ("1", 4, True) == (image["contract"], image["contract_minor"], image["usable"])
    asked = (tmp_path / "asked").read_text().removeprefix("--include=").split(",")
    assert {"libssl-dev", "g++-12", "bash", "udhcpc"} <= set(asked)
    assert ["it's /root"] * 2 == [(tmp_path / name).read_text() for name in ("one", "two")]
    assert "/the/root" == (tmp_path / "chroot").read_text()


def test_a_line_that_fails(tmp_path: Path) -> None:
    """What it said is shown; no image changes."""
    base = f"BASE = {str(tmp_path)!r}\n"
    path = nix(tmp_path, base + MMDEBSTRAP, name="mmdebstrap")
    nix(tmp_path, base + CHROOT, name="chroot")
    done = pikaci("build", "--run", "echo so it is; false; echo on", "--alias", ALIAS, path=path)

    assert (4, True, False) == (done.returncode, "so it is\n" in done.stderr, "on\n" in done.stdout)
    assert ALIAS not in listed()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--systemd", "--nixos", "vm"), "are different images"),
        (("--systemd", "--vm"), "are different images"),
        (("--flake", "/x"), "--flake needs --nixos"),
        (("--nixos", "lxd"), "'lxd' is not allowed"),
        (("--package", "zip"), "need --alias"),
        (("--run", "true"), "need --alias"),
        (("--nixos", "vm", "--run", "true", "--alias", "a"), "are for Debian guests"),
        (("--alias", "pikaci/dev"), "that pikaci builds by itself"),
        (("--nixos", "vm", "--alias", "pikaci/nixos"), "that pikaci builds by itself"),
        (("--alias", "a:b"), "is not a valid image alias"),
        (("--alias", "a", "--package", "zip,g++"), "is not a Debian package's name"),
        (("--alias", "a", "--package=-zip"), "is not a Debian package's name"),
        (("--alias", "a", "--package", "zip", "--package", ""), "is not a Debian package's name"),
        (("--alias", "a", "--run", " "), "is not a shell line"),
        (("--alias", "a", "--run", "true\nfalse"), "is not a shell line"),
        (("--alias", "a", "--run", "\x1b[2J"), "is not a shell line"),
    ],
)
def test_what_cannot_be_built(options: tuple[str, ...], problem: str) -> None:
    """A usage error, and nothing is built."""
    done = pikaci("build", *options)

    assert (2, True) == (done.returncode, problem in done.stderr), done.stderr
    assert "\x1b" not in done.stderr
