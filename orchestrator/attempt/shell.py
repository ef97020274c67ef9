"""A shell in a job's own world, as commands for its guest. Pure.

Beside a job that runs, the shell enters its namespaces, with the variables of its process: it sees
the job's scratch and /dev/shm, and ends with the job. In a kept guest the namespaces are gone: the
scratch overlay is mounted again, and the host brings the variables on stdin, as it did for the job,
because arguments can be read by anybody.

The scripts need bash and util-linux, as the runner does, and nothing of the runner itself: they
work with images of every minor version of the contract.
"""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.attempt.guest_scripts import GUEST_PATH
from orchestrator.contract import JOB_VARIABLES, contract

# Of our scripts, when there is nothing to enter. A shell may exit with it too.
NO_SHELL = 4
_HANDED_OVER = "/run/pikaci-shell"
_WAIT_SECS = 5
# How the command line of a shell in a guest ends, for who looks for one there.
SHELL_ENDS = " /dev/fd/4 -i"

# Runs as the job's user. Its variables are on descriptor 3, each ended by a NUL. From `set` on it
# uses only positional parameters, because any name may be a variable of the job.
_INSIDE = """\
mapfile -d '' -t pairs <&3
exec 3<&-
prompt="(pikaci $2) \\\\w \\\\$ "
rc=$(printf 'exec 4<&-\\nunset HISTFILE\\nhistory -s -- %q\\nPS1=%q\\n' "$1" "$prompt")
cd "$3" || cd /
exec 4< <(printf '%s\\n' "$rc")
set -- "${pairs[@]}" "TERM=${TERM:-dumb}"
for name in $(compgen -e); do unset "$name"; done
unset pairs prompt rc name
while (($#)); do
  [[ ! $1 =~ ^[A-Za-z_][A-Za-z0-9_]*= ]] || export "$1"
  shift
done 2>/dev/null
exec /bin/bash --noprofile --rcfileSHELL_ENDS""".replace("SHELL_ENDS", SHELL_ENDS)

_FAIL = """\
fail() { echo "pikaci: $1" >&2; exit 4; }
"""

# The job's init is process 1 of a namespace directly below the guest's: a job can make processes
# only further below. Its oldest descendant with a session of its own is the job's leader; before it
# has one, its variables are not all there.
_BESIDE = """\
runner=$1 uid=$2 gid=$3 job=$4 dir=$5 inside=$6 command=$7
find_init() {
  local status words
  while IFS= read -r status; do
    init=${status#/proc/} init=${init%/status}
    { mapfile -d '' -t words <"/proc/$init/cmdline"; } 2>/dev/null
    [[ ${words[*]: -2} != "$runner init" ]] || return 0
  done < <(grep -lsE $'^NSpid:\\t[0-9]+\\t1$' /proc/[0-9]*/status)
  return 1
}
find_leader() {
  local stat session
  leader=$init
  for _ in 1 2; do
    { read -r leader _ <"/proc/$leader/task/$leader/children"; } 2>/dev/null
    [[ $leader ]] || return 1
    { IFS= read -r stat <"/proc/$leader/stat"; } 2>/dev/null || return 1
    read -r _ _ _ session _ <<<"${stat##*) }"
    [[ $session != "$leader" ]] || return 0
  done
  return 1
}
command -v nsenter >/dev/null || fail "the image has no nsenter: it belongs to util-linux"
for ((tries = WAIT_SECS * 20; tries > 0; tries--)); do
  find_init && find_leader && break
  sleep 0.05
done
((tries > 0)) || fail "the job's command is not running (any more)"
{ exec 3<"/proc/$leader/environ"; } 2>/dev/null || fail "the job's command has just ended"
while [[ ! $command ]] && IFS= read -r -d '' pair; do
  [[ $pair != PIKACI_INCUS_GUEST_COMMAND=* ]] || command=${pair#*=}
done <"/proc/$init/environ"
chown "$uid" /proc/self/fd/0 2>/dev/null
become=()
((uid == 0)) || become=(--reuid "$uid" --regid "$gid" --init-groups)
exec nsenter --target "$init" --mount --ipc --pid -- \\
  setpriv --pdeathsig KILL "${become[@]}" \\
  /bin/bash --noprofile --norc -c "$inside" pikaci-shell "$command" "$job" "$dir"
""".replace("WAIT_SECS", str(_WAIT_SECS))

# Whoever is first mounts the overlay for all. Certificates and the staged Nix store are where the
# runner looks for them.
_KEPT = """\
uid=$1 gid=$2 job=$3 dir=$4 inside=$5 variables=$6 scratch=$7 private=$8 store=$9 command=${10}
{ exec 5<"$variables"; } 2>/dev/null || fail "the job's variables did not arrive in the guest"
rm -f "$variables"
if ((scratch)); then
  exec 6<"${variables%/*}"
  flock 6
  layers=lowerdir=$dir,upperdir=$private/scratch/upper,workdir=$private/scratch/work
  [[ $(stat -f -c %T "$dir") == overlayfs || ! -d $private/scratch/upper ]] ||
    mount -t overlay -o "$layers,userxattr" overlay "$dir" ||
    echo "pikaci: warning: the job's scratch cannot be mounted; it is in $private/scratch/upper" >&2
  exec 6<&-
fi
certs=/etc/ssl/certs/ca-bundle.crt
[[ -e $certs ]] || certs=/etc/ssl/certs/ca-certificates.crt
exec 3< <(
  printf '%s\\0' "SSL_CERT_FILE=$certs" "NIX_SSL_CERT_FILE=$certs"
  [[ ! -d $store ]] || printf '%s\\0' "PIKACI_STAGED_HOST_NIX_STORE_ROOT=$store"
  cat <&5
)
exec 5<&-
chown "$uid" /proc/self/fd/0 2>/dev/null
become=()
((uid == 0)) || become=(--reuid "$uid" --regid "$gid" --init-groups)
exec setpriv --pdeathsig KILL "${become[@]}" \\
  /bin/bash --noprofile --norc -c "$inside" pikaci-shell "$command" "$job" "$dir"
"""

# With stdin from the host, to a file for root only.
_HAND_OVER = 'umask 077; mkdir -p "${1%/*}" && cat >"$1" && echo done'


def beside(*, job: str, by: str, run_as_root: bool, command: str = "") -> tuple[str, ...]:
    """The guest command for a shell beside the job's own, for an exec with a terminal.

    `by` is who enters: it is only shown, in traces and in the guest's list of processes. `command`
    is for the shell's history, by default what the job runs.
    """
    given = (
        contract().runner,
        *_ids(run_as_root=run_as_root),
        job,
        _snapshot(),
        _INSIDE,
        command,
    )
    return ("/bin/bash", "-c", _FAIL + _BESIDE, f"pikaci-shell-of-{by}", *given)


def in_kept(
    *, job: str, by: str, command: str, run_as_root: bool, scratch: bool, variables: str
) -> tuple[str, ...]:
    """The guest command for a shell in a kept guest; `hand_over` wrote the file `variables`."""
    store = contract().devices["pikaci-nix-store"]
    given = (
        *_ids(run_as_root=run_as_root),
        job,
        _snapshot(),
        _INSIDE,
        variables,
    )
    more = ("1" if scratch else "0", contract().private, store, command)
    return ("/bin/bash", "-c", _FAIL + _KEPT, f"pikaci-shell-of-{by}", *given, *more)


def hand_over(token: str) -> tuple[str, tuple[str, ...]]:
    """A file in the guest for a shell's variables, and the guest command that fills it from stdin.

    The shell deletes it as soon as it has opened it.
    """
    path = f"{_HANDED_OVER}/{token}"
    return path, ("sh", "-c", _HAND_OVER, "pikaci-shell", path)


def variables(own: Mapping[str, str], *, run_as_root: bool) -> bytes:
    """A shell's variables as the runner sets them for a job, with the job's `own` over them."""
    user = contract().user
    name, home = ("root", "/root") if run_as_root else (user.name, user.home)
    pairs = {
        "HOME": home,
        "USER": name,
        "LOGNAME": name,
        "PATH": GUEST_PATH,
        "SHELL": "/bin/bash",
        "LANG": "C.UTF-8",
        **JOB_VARIABLES,
        **own,
    }
    return b"".join(f"{key}={value}".encode() + b"\0" for key, value in pairs.items())


def _snapshot() -> str:
    return contract().devices["pikaci-snapshot"]


def _ids(*, run_as_root: bool) -> tuple[str, str]:
    user = contract().user
    return ("0", "0") if run_as_root else (str(user.uid), str(user.gid))
