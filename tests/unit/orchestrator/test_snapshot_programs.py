"""Nothing that lies in a workspace runs on the host while its snapshot is made."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from orchestrator.errors import SnapshotError
from orchestrator.snapshot.snapshot import Snapshot, publish
from tests.unit.orchestrator.workspaces import OWNER, add_gitlink, commit_all, git, names

HOOKS = (
    "applypatch-msg", "commit-msg", "fsmonitor-watchman", "post-applypatch", "post-checkout",
    "post-commit", "post-index-change", "post-merge", "post-rewrite", "post-update",
    "pre-applypatch", "pre-auto-gc", "pre-commit", "pre-merge-commit", "pre-push", "pre-rebase",
    "pre-receive", "prepare-commit-msg", "proc-receive", "push-to-checkout", "query-watchman",
    "reference-transaction", "sendemail-validate", "update",
)  # fmt: skip
ATTRIBUTES = "* filter=evil diff=evil merge=evil text=auto\n*.c filter=e=vil diff=e=vil\n"
# Every setting of git that names a program, or a directory or protocol from which one comes.
PROGRAMS = {
    key: value
    for value, keys in {
        "CANARY": (
            "browser.evil.cmd", "core.alternateRefsCommand", "core.askPass", "core.editor",
            "core.fsmonitor", "core.gitProxy", "core.pager", "core.sshCommand",
            "credential.helper", "credential.https://example.com.helper", "diff.e=vil.command",
            "diff.evil.command", "diff.evil.textconv", "diff.external", "difftool.evil.cmd",
            "diff.tool", "filter.e=vil.clean", "filter.e=vil.process", "filter.evil.clean",
            "filter.evil.process", "filter.evil.smudge", "gpg.openpgp.program", "gpg.program",
            "gpg.ssh.defaultKeyCommand", "gpg.ssh.program", "gpg.x509.program", "guitool.evil.cmd",
            "hook.evil.command", "imap.tunnel", "instaweb.httpd", "interactive.diffFilter",
            "man.evil.cmd", "man.evil.path", "merge.e=vil.driver", "merge.evil.driver",
            "mergetool.evil.cmd", "pager.config", "pager.diff", "pager.ls-files", "pager.status",
            "remote.origin.receivepack", "remote.origin.uploadpack", "sendemail.sendmailCmd",
            "sendemail.smtpServer", "sendemail.toCmd", "sequence.editor", "tar.evil.command",
            "trailer.evil.cmd", "trailer.evil.command", "uploadpack.packObjectsHook",
        ),
        "!CANARY": (
            "alias.check-ignore", "alias.config", "alias.diff-index", "alias.ls-files",
            "alias.rev-parse", "alias.status", "alias.update-index", "submodule.sub.update",
        ),
        "HOOKS": ("core.hooksPath", "init.templateDir"),
        "ext::CANARY": ("remote.origin.url", "submodule.sub.url"),
        "evil": ("remote.origin.vcs", "instaweb.browser", "web.browser", "man.viewer"),
    }.items()
    for key in keys
} | {"url.ext::CANARY.insteadOf": "https://"}  # fmt: skip


class Trap:
    """A workspace whose repositories name a program that leaves a file when it runs."""

    def __init__(self, base: Path, workspace: Path) -> None:
        self.workspace = workspace
        self.ran = base / "ran"
        self.ran.mkdir()
        self.canary = base / "canary"
        self.canary.write_text(f'#!/bin/sh\ntouch "{self.ran}/canary"\ncat 2>/dev/null\n')
        self.canary.chmod(0o755)
        self.hooks = base / "evil-hooks"
        self._write_hooks(self.hooks)
        for tree in self.repositories():
            self._write_hooks(tree / ".git" / "hooks")

    def repositories(self) -> list[Path]:
        return [
            tree
            for tree in (self.workspace, self.workspace / "sub", self.workspace / "inner")
            if tree.exists()
        ]

    def set(self, settings: dict[str, str], place: str, *, only: str = "") -> None:
        """Write the settings into the configuration of every repository, or of one alone."""
        text = "".join(self._setting(key, value) for key, value in settings.items())
        text += self._setting("protocol.allow", "always")
        for tree in [self.workspace / only] if only else self.repositories():
            with open(tree / ".git" / "config", "a") as config:
                if place == "config":
                    config.write(text)
                elif place == "config.worktree":
                    config.write("[extensions]\nworktreeConfig = true\n")
                    (tree / ".git" / "config.worktree").write_text(text)
                else:
                    condition = ' "gitdir:**"' if place == "includeIf" else ""
                    config.write(f"[{place}{condition}]\npath = ../.included\n")
                    (tree / ".included").write_text(text)

    def _setting(self, key: str, value: str) -> str:
        section, _, rest = key.partition(".")
        subsection, _, name = rest.rpartition(".")
        head = f'[{section} "{self._filled(subsection)}"]' if subsection else f"[{section}]"
        return f'{head}\n{name} = "{self._filled(value)}"\n'

    def _filled(self, text: str) -> str:
        return text.replace("CANARY", str(self.canary)).replace("HOOKS", str(self.hooks))

    def _write_hooks(self, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        for name in HOOKS:
            shutil.copy(self.canary, directory / name)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a submodule and attributes, both tracked and not."""
    made = tmp_path_factory.mktemp("template") / "workspace"
    (made / "sub").mkdir(parents=True)
    for tree in (made / "sub", made):
        (tree / "a.txt").write_text("a\n")
        (tree / "b.c").write_text("b\n")
        (tree / ".gitattributes").write_text(ATTRIBUTES)
        (tree / ".gitignore").write_text(".included\n")
        git(tree, "init", "-q")
        (tree / ".git" / "info" / "attributes").write_text(ATTRIBUTES)
    commit = commit_all(made / "sub")
    git(made, "add", "a.txt", "b.c", ".gitattributes", ".gitignore")
    add_gitlink(made, "sub", commit)
    return made


@pytest.fixture(params=["unchanged", "changed", "nested"])
def trap(request: pytest.FixtureRequest, tmp_path: Path, workspace: Path, template: Path) -> Trap:
    """All files have new inodes, so git compares the content of each: with filters, if it may."""
    shutil.copytree(template, workspace, dirs_exist_ok=True)
    if request.param == "nested":
        shutil.copytree(template / "sub", workspace / "inner")
    if request.param == "changed":
        (workspace / "a.txt").write_text("c\n")
        (workspace / "sub" / "b.c").write_text("d\n")
    return Trap(tmp_path, workspace)


@pytest.mark.parametrize("trap", ["unchanged"], indirect=True)
@pytest.mark.parametrize("key", PROGRAMS)
async def test_no_setting_of_a_repository_runs_a_program(
    trap: Trap, snapshots: Path, key: str
) -> None:
    """Not of the workspace's repository, a submodule's, or that of one which lies inside."""
    trap.set({key: PROGRAMS[key]}, "config")

    snapshot = await publish(trap.workspace, snapshots, owner=OWNER)

    assert [] == os.listdir(trap.ran)
    assert {"a.txt", "b.c", "sub/a.txt", "sub/b.c"} <= names(snapshot)


@pytest.mark.parametrize("place", ["config", "config.worktree", "include", "includeIf"])
async def test_no_file_of_settings_runs_a_program(trap: Trap, snapshots: Path, place: str) -> None:
    """Wherever the settings stand, and all of them at once."""
    trap.set(PROGRAMS, place)

    await publish(trap.workspace, snapshots, owner=OWNER)

    assert [] == os.listdir(trap.ran)


@pytest.mark.parametrize("trap", ["unchanged", "changed"], indirect=True)
async def test_no_setting_of_a_submodule_alone_runs_a_program(trap: Trap, snapshots: Path) -> None:
    """The workspace's own repository need not know the name of a filter there."""
    trap.set(PROGRAMS, "config", only="sub")

    await publish(trap.workspace, snapshots, owner=OWNER)

    assert [] == os.listdir(trap.ran)


@pytest.mark.parametrize(
    "key",
    [
        "core.fsmonitor",
        "filter.evil.clean",
        "filter.evil.process",
        "filter.e=vil.clean",
        "core.hooksPath",
    ],
)
@pytest.mark.parametrize("place", ["config", "config.worktree", "include", "includeIf"])
async def test_the_same_tree_runs_programs_in_git_itself(
    tmp_path: Path, workspace: Path, template: Path, key: str, place: str
) -> None:
    """So these tests would see a program that runs."""
    shutil.copytree(template, workspace, dirs_exist_ok=True)
    trap = Trap(tmp_path, workspace)
    trap.set({key: PROGRAMS[key]}, place)

    subprocess.run(["git", "status"], cwd=workspace, capture_output=True)

    assert ["canary"] == os.listdir(trap.ran)


async def test_a_missing_object_is_not_fetched(
    tmp_path: Path, workspace: Path, snapshots: Path, template: Path
) -> None:
    """A partial clone names the program that fetches: the run stops instead, in git's words."""
    shutil.copytree(template, workspace, dirs_exist_ok=True)
    trap = Trap(tmp_path, workspace)
    tree = git(workspace, "rev-parse", "HEAD^{tree}")
    (workspace / ".git" / "objects" / tree[:2] / tree[2:]).unlink()
    trap.set(
        {
            "core.repositoryFormatVersion": "1",
            "extensions.partialClone": "origin",
            "remote.origin.promisor": "true",
            "remote.origin.url": "ext::CANARY",
            "protocol.ext.allow": "always",
        },
        "config",
    )

    with pytest.raises(SnapshotError, match="git cannot read this repository") as caught:
        await publish(workspace, snapshots, owner=OWNER)

    assert "bad tree object" in caught.value.details
    assert [] == os.listdir(trap.ran) == os.listdir(snapshots)


async def test_an_extension_s_name_cannot_bring_a_setting_along(
    tmp_path: Path, workspace: Path, snapshots: Path, template: Path
) -> None:
    """What git is given of the repository's format is checked word for word."""
    shutil.copytree(template, workspace, dirs_exist_ok=True)
    trap = Trap(tmp_path, workspace)
    with open(workspace / ".git" / "config", "a") as config:
        config.write(f'[extensions "x][core]fsmonitor={trap.canary}#"]\ny = 1\n')

    with pytest.raises(SnapshotError) as caught:
        await publish(workspace, snapshots, owner=OWNER)

    assert "unknown repository extension" in caught.value.details
    assert [] == os.listdir(trap.ran)


@pytest.mark.parametrize("entry", ["", ".", "bin", "{workspace}/bin"])
async def test_a_git_that_lies_in_the_workspace_is_not_run(
    tmp_path: Path,
    workspace: Path,
    snapshots: Path,
    template: Path,
    entry: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever PATH says, and wherever pikaci is started."""
    shutil.copytree(template, workspace, dirs_exist_ok=True)
    trap = Trap(tmp_path, workspace)
    (workspace / "bin").mkdir()
    for directory in (workspace, workspace / "bin"):
        shutil.copy(trap.canary, directory / "git")
    monkeypatch.chdir(workspace)
    path = entry.format(workspace=workspace)
    monkeypatch.setenv("PATH", f"{path}{os.pathsep}{os.environ['PATH']}")

    await publish(workspace, snapshots, owner=OWNER)

    assert [] == os.listdir(trap.ran)


async def test_the_user_s_own_filters_do_not_run(
    tmp_path: Path,
    workspace: Path,
    snapshots: Path,
    template: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A program that the user trusts is not run on files that the user may not."""
    shutil.copytree(template, workspace, dirs_exist_ok=True)
    trap = Trap(tmp_path, workspace)
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(f'[filter "evil"]\nclean = {trap.canary}\nrequired = true\n')
    monkeypatch.setenv("HOME", str(home))

    snapshot: Snapshot = await publish(workspace, snapshots, owner=OWNER)

    assert [] == os.listdir(trap.ran)
    assert snapshot.dirty is False
