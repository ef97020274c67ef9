# The test of guest.nix in the booted guest. CONTRACT and RUNNER are files; `guest` is the machine.
import base64
import json
import shlex

with open(CONTRACT) as file:
    contract = json.load(file)
names, stdin_names, user = contract["variables"], contract["stdin"], contract["user"]

# The environment in which Incus's agent starts a command, without NixOS's own paths.
AGENT = (
    "env -i HOME=/root USER=root LANG=C.UTF-8"
    " PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)
NONCE = "n0nce"

# Takes the place of the host's daemon, and records what it was told.
HOST = """
import http.server, socketserver

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_error(404)
    def do_PATCH(self):
        told = self.rfile.read(int(self.headers["Content-Length"])).decode()
        open("/run/told", "w").write(self.path + " " + told)
        self.send_response(200)
        self.end_headers()
    def address_string(self):
        return "guest"

socketserver.UnixStreamServer("/dev/incus/sock", Handler).serve_forever()
"""


def start(variables: dict[str, str], stdin: dict[str, str]) -> tuple[int, str]:
    """Run the runner in a fresh guest; returns exit code and output."""
    guest.succeed(f"rm -rf {contract['private']} {contract['log']} {contract['result']}")
    records = "".join(f"{key}={value}\0" for key, value in stdin.items()).encode()
    words = [f"{key}={value}" for key, value in variables.items()]
    return guest.execute(
        f"echo {base64.b64encode(records).decode()} | base64 -d |"
        f" {AGENT} /usr/bin/env {shlex.join(words)} {contract['runner']} 2>&1"
    )


def run(
    command: str, root: bool = False, timeout_secs: int = 60, **environment: str
) -> tuple[int, str]:
    """Run a job; returns its exit code, and its log without the runner's first line."""
    code, said = start(
        {
            names["command"]: command,
            names["timeout_secs"]: str(timeout_secs),
            names["run_as_root"]: "1" if root else "0",
        },
        {**environment, stdin_names["grace_secs"]: "1", stdin_names["nonce"]: NONCE},
    )
    first, _, rest = said.partition("\n")
    assert first.startswith("[pikaci] incus guest booted at "), said
    return code, rest


def result(field: str) -> str:
    """A field of the result."""
    return guest.succeed(f"jq -r .{field} {contract['result']}").strip()


guest.start()
guest.wait_for_unit("multi-user.target")

with subtest("the directories are there, as the contract says"):
    for directory in contract["directories"]:
        expected = f"{directory['user']}:{directory['group']} {directory['mode'].lstrip('0')}"
        assert expected == guest.succeed(f"stat -c '%U:%G %a' {directory['path']}").strip()

with subtest("the user is there, and has its home"):
    expected = f"{user['uid']} {user['gid']} {user['group']}"
    seen = [guest.succeed(f"id {flag} {user['name']}").strip() for flag in ("-u", "-g", "-gn")]
    assert expected == " ".join(seen)
    assert user["name"] == guest.succeed(f"stat -c %U {user['home']}").strip()

with subtest("the runner is the file that the tests run"):
    started = f"grep -o '/nix/store/[^ ]*-pikaci-incus-run' {contract['runner']}"
    guest.succeed(f"cmp {RUNNER} $({started} | tail -n 1)")

with subtest("nobody comes in without the host"):
    guest.fail("systemctl cat sshd.service")

for root in (False, True):
    who = "root" if root else user["name"]
    with subtest(f"a job of {who} sees its user, its place and its variables"):
        home = "/root" if root else user["home"]
        odd = "a 'b' \"c\""
        code, said = run('echo "$(id -un) $PWD $HOME $CARGO_HOME $ODD"; exit 7', root, ODD=odd)
        assert (7, f"{who} /workspace/snapshot {home} /cargo-home {odd}\n") == (code, said)
        assert ("failed", "7", NONCE) == (result("status"), result("exit_code"), result("nonce"))

    with subtest(f"a job of {who} can write to its directories"):
        code, said = run(
            'touch /artifacts/a "$HOME/a" "$CARGO_HOME/a" "$CARGO_TARGET_DIR/a"'
            ' "$XDG_CACHE_HOME/a" "$XDG_STATE_HOME/a"',
            root,
        )
        assert (0, "passed") == (code, result("status")), said

    with subtest(f"a job of {who} ends when its time is up, and its family with it"):
        code, _ = run("trap '' TERM; setsid sleep 12321 & sleep 12321", root, timeout_secs=1)
        assert (124, "timed_out") == (code, result("status"))
        guest.fail("pgrep -f 'sleep [1]2321'")

with subtest("scripts of other systems start, and certificates are found"):
    code, said = run(
        "printf '#!/bin/bash\\nexit 3\\n' > /tmp/script; chmod +x /tmp/script;"
        ' test -s "$SSL_CERT_FILE"; /tmp/script'
    )
    assert 3 == code, said

with subtest("a job can build a program that wants a library"):
    code, said = run(
        "cd /tmp; echo 'fn main() { println!(\"{}\", 40 + 2) }' > a.rs;"
        ' rustc a.rs; test 42 = "$(./a)";'
        " echo '#include <openssl/ssl.h>\nint main(void) { return OPENSSL_init_ssl(0, 0) != 1; }' > b.c;"
        " cc b.c -o b $(pkg-config --cflags --libs openssl); ./b"
    )
    assert 0 == code, said

with subtest("without a variable the runner stops, and names it"):
    values = {names["command"]: "true", names["timeout_secs"]: "9", names["run_as_root"]: "0"}
    for missing in values:
        rest = {key: value for key, value in values.items() if key != missing}
        code, said = start(rest, {stdin_names["nonce"]: NONCE})
        assert code != 0 and missing in said, said
        assert "error" == result("status") and missing in result("message")

with subtest("the guest tells its host that it is ready"):
    guest.succeed("mkdir -p /dev/incus")
    guest.succeed(f"systemd-run --unit=fake-host $(command -v python3) -c {shlex.quote(HOST)}")
    guest.wait_until_succeeds("test -S /dev/incus/sock")
    guest.succeed("systemctl restart pikaci-ready.service")
    guest.wait_until_succeeds('grep -qxF \'/1.0 {"state":"Ready"}\' /run/told')
