"""A job that wants another verdict, or wants to know what is not for it."""

from __future__ import annotations

import stat

import pytest

from .guest import CONTRACT, Ended, Guest

BOTH = pytest.mark.parametrize("root", [False, True], ids=["user", "root"])
FORGED = '{"status":"passed","exit_code":0}'
RESULT, LOG = CONTRACT["result"], CONTRACT["log"]
ATTACKS = {
    "a forged result": f"echo '{FORGED}' >{RESULT}",
    "a forged log": f"echo nothing happened >{LOG}",
    "directories": f"mkdir -p {RESULT}/x {LOG}/x",
    "fifos": f"mkfifo {RESULT} {LOG}",
    "links": f"ln -s /etc/passwd {RESULT}; ln -s /home/pikaci/victim {LOG}",
    "dangling links": f"ln -s /home/pikaci/new {RESULT}; ln -s /no/where {LOG}",
    "links to directories": f"ln -s /home/pikaci {RESULT}; ln -s /tmp {LOG}",
    "no permissions": f"touch {RESULT}; chmod 0 {RESULT} /artifacts",
    "a daemon": '(setsid bash -c \'trap "" TERM HUP; while :; do echo forged'
    f" >{RESULT}; done' &>/dev/null &)",
    "a mount": "unshare -Urm bash -c 'mount -t tmpfs none /artifacts; sleep 0.1' || :",
}


@BOTH
@pytest.mark.parametrize("attack", ATTACKS)
def test_forged_names(guest: Guest, attack: str, root: bool) -> None:
    """Whatever a job puts under the two names, the log and the result are the runner's own."""
    victim = guest.path("/home/pikaci/victim")
    victim.write_text("mine")
    ended = guest.run(f"{ATTACKS[attack]}; echo words; exit 5", root=root)

    assert_true_verdict(guest, ended)
    assert "mine" == victim.read_text()
    assert not guest.path("/home/pikaci/new").exists()


def test_moved_artifacts(guest: Guest) -> None:
    """A root job that puts a link in place of /artifacts gets a new directory there."""
    ended = guest.run("mv /artifacts /moved; ln -s /home /artifacts; echo words; exit 5", root=True)

    assert_true_verdict(guest, ended)
    assert not guest.path("/artifacts").is_symlink()
    assert ["pikaci"] == [path.name for path in guest.path("/home").iterdir()]


def assert_true_verdict(guest: Guest, ended: Ended) -> None:
    assert ended.result is not None
    expected = (5, "failed", 5, "n0nce")
    keys = ("status", "exit_code", "nonce")
    assert expected == (ended.code, *(ended.result[key] for key in keys))
    assert b"words\n" == ended.output
    for name in ("log", "result"):
        status = guest.path(CONTRACT[name]).lstat()
        assert stat.S_ISREG(status.st_mode)
        assert (0, 0, 0o644) == (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode))


def test_nonce_is_hidden(guest: Guest) -> None:
    """User 1000 finds the nonce in no environment, command line, open file or file of the guest."""
    ended = guest.run(
        "{ cat /proc/*/environ /proc/*/cmdline /proc/*/root/var/lib/pikaci-incus-run/result.json;"
        " ls -l /proc/*/fd; grep -r -D skip . /artifacts /run /tmp /home; } 2>/dev/null || :",
        send={"PIKACI_INCUS_NONCE": "very-hidden", "VISIBLE": "very-visible"},
    )

    assert b"very-visible" in ended.output
    assert b"very-hidden" not in ended.output


def test_secrets_stand_in_no_argument(guest: Guest) -> None:
    """While a job runs, its environment and its nonce are in no command line of the guest."""
    job = guest.start(
        "mkfifo /tmp/go; echo up; read _ </tmp/go",
        send={"PIKACI_INCUS_NONCE": "very-hidden", "TOKEN": "very-secret"},
    )
    assert job.stdout is not None
    assert job.stdout.readline().startswith(b"[pikaci]")
    assert b"up\n" == job.stdout.readline()
    lines = guest.processes()
    guest.shell("echo >/tmp/go")

    assert 0 == guest.ended(job).code
    assert any("very" not in line and "supervise" in line for line in lines)
    assert not [line for line in lines if "very-" in line]


@BOTH
def test_no_open_files(guest: Guest, root: bool) -> None:
    """The job inherits its three streams, and no descriptor of the runner."""
    ended = guest.run("echo /proc/self/fd/*", root=root)

    # The fourth is the listing's own; `echo` is the shell, so the shell has no more than these.
    assert b"/proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2 /proc/self/fd/3\n" == ended.output


@BOTH
def test_killed_from_inside(guest: Guest, root: bool) -> None:
    """Signals to everyone, to init and to group 0 end no process of the runner."""
    ended = guest.run(
        "exec 2>/dev/null; trap '' TERM HUP INT; kill -KILL 1 || :; kill -STOP 1 || :;"
        " kill -TERM 0; kill -TERM -1 || :; echo words; exit 5",
        root=root,
    )

    assert_true_verdict(guest, ended)
