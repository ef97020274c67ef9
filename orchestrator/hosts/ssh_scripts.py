"""What is done on a host over ssh, as scripts for POSIX sh, tar and sha256sum. Pure.

Below `trees` in pikaci's directory there:

    NAME/tree          a whole tree; it has this name only when it is complete and verified
    NAME/until-TIME    a lease on it, which ends at this time of that host's clock
    .new-WORD          a tree that is being received, with a lease of its own
    .old-WORD          a tree that is being deleted

Whoever publishes a tree makes NAME, which may be there already, and renames `tree` into it. That
fails if there is a tree, so of two publishers one finds that the other was faster. Trees may share
files, which are therefore never written to, and whose modes stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from orchestrator.hosts.far_shell import quoted
from orchestrator.hosts.pack import SUMS, TREE

TREE_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
# Leases end at a multiple of this, so that many jobs make few files.
LEASE_STEP_SECS = 600
_AT_ONCE = 200  # names in one command

_LEASE = """\
now=$(date +%s)
until=until-$(( (now + {secs}) / {step} * {step} + {step} ))"""

# Directories only: files may be shared, with their modes.
_UNLOCK = 'find "{}" -type d ! -perm -700 -exec chmod u+rwx {{}} \\;'
# `erase DIRECTORY`: also one whose directories may not be written to.
_ERASE = f'erase() {{ {_UNLOCK.format("$1")} && rm -rf "$1"; }}'


def ask(
    directory: str, names: Sequence[str], bases: Sequence[str] = (), *, lease_secs: float
) -> str:
    """Take a lease on each tree, and answer `there NAME` or `missing NAME`.

    The first of `bases` that is there gets a lease too, and the answer `base NAME`. All directories
    are made in this one call. What is at a tree's place is left as it is: an operator may have put
    a link there.
    """
    trees = quoted(f"{directory}/trees")
    return f"""\
umask 077
mkdir -p {trees}
chmod 700 {quoted(directory)}
cd {trees}
{_lease(lease_secs)}
for name in {_words(names)}; do
  mkdir -p "$name"
  : > "$name/$until"
  if [ -d "$name/{TREE}" ]; then echo there "$name"; else echo missing "$name"; fi
done
for name in {_words(bases)}; do
  [ -d "$name/{TREE}" ] || continue
  : > "$name/$until"
  echo base "$name"
  break
done"""


def receive(
    directory: str,
    name: str,
    word: str,
    *,
    secs: float,
    base: str = "",
    remove: Iterable[bytes] = (),
) -> str:
    """Unpack an archive of `pack` from stdin, verify it, and publish it as this tree.

    With a `base`, the archive has only what differs from that tree, and `remove` are the names of
    what goes first. An archive that was cut off has no `sums`, which comes last. Answers
    `published`, or `cut`, or `nolinks` if trees cannot share files there.
    """
    new = f".new-{word}"
    return f"""\
umask 022
{_ERASE}
trees={quoted(f"{directory}/trees")}
cd "$trees"
{_lease(secs)}
mkdir -m 700 {new}
trap 'cd "$trees"; erase {new}' EXIT
: > "{new}/$until"
cd {new}
{_start_from(base, remove) if base else ""}
tar -xpf -
[ -f {SUMS} ] || {{ echo cut; exit 1; }}
if [ -s {SUMS} ]; then (cd {TREE} && sha256sum -c ../{SUMS} >/dev/null); fi
cd ..
sync
mkdir -p {name}
mv {new}/{TREE} {_words([name])} 2>/dev/null || [ -d {name}/{TREE} ]
echo published"""


def sweep(directory: str, word: str, *, idle_secs: float, dry_run: bool = False) -> str:
    """Delete trees whose last lease ended `idle_secs` ago, and what transfers left that broke off.

    Answers `deleted NAME`, or the same for what would be deleted.
    """
    old = f".old-{word}"
    doomed = "" if dry_run else f"set_aside {old} || continue"
    return f"""\
{_ERASE}
live() {{
  last=0
  for lease in "$1"/until-*; do
    if [ -e "$lease" ] && [ "${{lease##*/until-}}" -gt "$last" ]; then last=${{lease##*/until-}}; fi
  done
  [ "$last" -gt "$(( now - $2 ))" ]
}}
set_aside() {{
  mv "$name" "$1" 2>/dev/null || return 1
  # A job may have taken a lease at the last moment, which came along.
  if live "$1" 0; then mv "$1" "$name" 2>/dev/null || mv "$1/{TREE}" "$name"; return 1; fi
  erase "$1"
}}
[ -d {quoted(f"{directory}/trees")} ] || exit 0
cd {quoted(f"{directory}/trees")}
now=$(date +%s)
for name in * .new-* .old-*; do
  [ -d "$name" ] && [ ! -L "$name" ] || continue
  case $name in .*) idle=0;; *) idle={int(idle_secs)};; esac
  if live "$name" "$idle"; then continue; fi
  {doomed}
  echo deleted "$name"
done"""


def look(directory: str) -> str:
    """Answer who we are there, the time, the free kilobytes for trees, and what is missing."""
    return f"""\
echo user "$(id -un)"
echo now "$(date +%s)"
for command in tar sha256sum find date mv cp; do
  command -v $command >/dev/null || echo missing "the command $command"
done
there={quoted(directory)}
while [ ! -d "$there" ]; do there=$(dirname "$there"); done
[ -w "$there" ] || echo missing "the right to write to $there"
set -- $(df -Pk "$there" | tail -n 1)
echo free $4"""


def _start_from(base: str, remove: Iterable[bytes]) -> str:
    lines = [
        f"cp -al ../{_words([base])}/{TREE} {TREE} || {{ echo nolinks; exit 1; }}",
        _UNLOCK.format(TREE),
    ]
    names = [f"{TREE}/{name.decode('utf-8', 'surrogateescape')}" for name in remove]
    for start in range(0, len(names), _AT_ONCE):
        words = " ".join(quoted(name) for name in names[start : start + _AT_ONCE])
        lines.append(f"rm -rf -- {words}")
    return "\n".join(lines)


def _words(names: Iterable[str]) -> str:
    every = list(names)
    for name in every:
        assert re.fullmatch(TREE_NAME, name), name
    return " ".join(every)


def _lease(secs: float) -> str:
    return _LEASE.format(secs=int(secs) + 1, step=LEASE_STEP_SECS)
