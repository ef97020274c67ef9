"""What stands behind /dev/incus/sock in a guest, and the scripts that talk to it."""

from __future__ import annotations

import subprocess

from .guest import RUNNER, Guest, wait_for

# Answers each asker with the next of its arguments, one of `!` and a number with that HTTP code;
# then it is gone. Says on stdout what it was asked.
_PROGRAM = """
import http.server, os, socketserver, sys
answers = sys.argv[1:]

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        asked = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        print(self.command, self.path, asked, flush=True)
        answer = answers.pop(0)
        self.send_response(int(answer[1:]) if answer.startswith("!") else 200)
        self.send_header("Retry-After", "1")
        self.end_headers()
        self.wfile.write(answer.encode())
    do_PATCH = do_GET
    def address_string(self):
        return "guest"
    def log_message(self, *words):
        pass

with socketserver.UnixStreamServer("/dev/incus/sock", Handler) as server:
    print("up", flush=True)
    while answers:
        server.handle_request()
    os.unlink("/dev/incus/sock")
"""


class Daemon:
    """The daemon of a guest that has the script `name`."""

    def __init__(self, guest: Guest, name: str) -> None:
        self.guest = guest
        self.script = f"/opt/{name}"
        guest.path(self.script).write_bytes(RUNNER.with_name(name).read_bytes())
        guest.path(self.script).chmod(0o755)
        guest.shell("mount -t tmpfs tmpfs /dev; mkdir /dev/incus; mknod -m 666 /dev/null c 1 3")

    def answers(self, *answers: str) -> subprocess.Popen[bytes]:
        """Have it answer. It ends with the last answer, having told all that it was asked."""
        process = self.guest.popen("-c", _PROGRAM, *answers, program="python3")
        wait_for(process.stdout, b"up\n")
        return process

    def script_ends(self) -> tuple[int, str]:
        """Run the script: its exit code, and what it says."""
        code, stdout, stderr = self.guest.call(program=self.script)
        return code, (stdout + stderr).decode()
