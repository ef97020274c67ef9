"""The MCP server of docs/examples, as an agent uses it: lines of JSON on its stdin and stdout."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.state_root import default_state_root
from tests.integration.command import SECS, Command, wait_until

pytestmark = pytest.mark.incus

SERVER = Path(__file__).parents[2] / "docs" / "examples" / "mcp_server.py"
SMALL = {"memory": "512MiB", "cpus": 1}


class Agent:
    """A client of a server that it starts."""

    def __init__(self, workspace: Path, env: dict[str, str]) -> None:
        self.server = subprocess.Popen(
            [sys.executable, str(SERVER), str(workspace)],
            env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self._id = 0
        self._answers: dict[int, Any] = {}
        self.ask("initialize", protocolVersion="2025-06-18", capabilities={}, clientInfo={})
        self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def send(self, message: dict[str, Any]) -> None:
        assert self.server.stdin is not None
        self.server.stdin.write(json.dumps(message) + "\n")
        self.server.stdin.flush()

    def begin(self, method: str, **params: Any) -> int:
        self._id += 1
        self.send({"jsonrpc": "2.0", "id": self._id, "method": method, "params": params})
        return self._id

    def end(self, id: int) -> Any:
        assert self.server.stdout is not None
        while id not in self._answers:
            answer = json.loads(self.server.stdout.readline())
            self._answers[answer["id"]] = answer
        return self._answers.pop(id)

    def ask(self, method: str, **params: Any) -> Any:
        return self.end(self.begin(method, **params))

    def tool(self, name: str, **given: Any) -> str:
        """The text that a tool returns; `ValueError` with it if the tool failed."""
        result = self.ask("tools/call", name=name, arguments=given)["result"]
        (part,) = result["content"]
        if result["isError"]:
            raise ValueError(part["text"])
        text: str = part["text"]
        return text


@pytest.fixture
def agents(pikaci: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Makes agents of one workspace, and of `pikaci`'s state root."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    pikaci.root = default_state_root(pikaci.workspace)
    pikaci.env["XDG_STATE_HOME"] = str(tmp_path / "state")
    made: list[Agent] = []

    def make() -> Agent:
        made.append(Agent(pikaci.workspace, pikaci.env))
        return made[-1]

    yield make
    for agent in made:
        agent.server.kill()
        agent.server.wait()


def test_an_agent_works_with_jobs(pikaci: Command, agents: Any) -> None:
    """It submits jobs, waits for them and reads their logs; a wrong call gets an error it can act on."""
    agent = agents()
    tools = agent.ask("tools/list")["result"]["tools"]
    passes = agent.tool(
        "submit", command="echo one; echo text > /artifacts/out", artifacts=["*"], **SMALL
    )
    fails = agent.tool("submit", command="exit 7", key="one", **SMALL)
    again = agent.tool("submit", command="exit 7", key="one", **SMALL)
    late = agent.tool("submit", command="sleep 600", timeout_secs=1, **SMALL)
    ends = {job: agent.tool("wait", job=job) for job in (passes, fails, late)}
    (artifact,) = agent.tool("artifacts", job=passes).splitlines()

    assert ["submit", "wait", "log_tail", "artifacts", "cancel"] == [one["name"] for one in tools]
    assert ends[passes].startswith("passed, exit code 0")
    assert ends[fails].startswith("failed, exit code 7")
    assert ends[late].startswith("timed_out")
    assert fails == again
    assert agent.tool("log_tail", job=passes).endswith("one")
    assert "text\n" == Path(artifact).read_text()
    with pytest.raises(ValueError, match="cpus"):
        agent.tool("submit", command="true", cpus=0)
    with pytest.raises(ValueError, match="nothing"):
        agent.tool("wait", job="nothing")
    assert -32601 == agent.ask("resources/list")["error"]["code"]
    assert {} == agent.ask("ping")["result"]
    agent.server.stdin.close()
    assert 0 == agent.server.wait(SECS)
    assert [] == pikaci.leases()


def test_a_wait_keeps_nobody_waiting(pikaci: Command, agents: Any) -> None:
    """An agent cancels the job meanwhile; or ends itself, and its jobs with it."""
    agent = agents()
    job = agent.tool("submit", command="echo begun; sleep 600", **SMALL)
    waiting = agent.begin("tools/call", name="wait", arguments={"job": job})
    while "begun" not in agent.tool("log_tail", job=job):
        pass
    assert "cancelled" == agent.tool("cancel", job=job)
    assert agent.end(waiting)["result"]["content"][0]["text"].startswith("cancelled")
    agent.tool("submit", command="sleep 600", **SMALL)
    wait_until(pikaci.leases)
    agent.server.send_signal(signal.SIGTERM)

    assert 0 == agent.server.wait(SECS)
    assert [] == pikaci.leases()


def test_the_jobs_of_a_killed_server_go_on_with_the_next(pikaci: Command, agents: Any) -> None:
    """The key finds the job; nothing is left of it then."""
    first = agents()
    asked = {"command": "echo begun; sleep 2; exit 7", "key": "one", **SMALL}
    job = first.tool("submit", **asked)
    while "begun" not in first.tool("log_tail", job=job):
        pass
    first.server.kill()
    first.server.wait(SECS)
    second = agents()

    assert job == second.tool("submit", **asked)
    assert second.tool("wait", job=job).startswith("failed, exit code 7")
    wait_until(lambda: [] == pikaci.leases())


def test_without_an_incus_the_agent_is_told(pikaci: Command, agents: Any) -> None:
    """A fault of the host is the text of a failed tool; the server goes on."""
    pikaci.env["INCUS_SOCKET"] = "/nonexistent"
    agent = agents()

    with pytest.raises(ValueError, match="pikaci doctor"):
        agent.tool("submit", command="true", **SMALL)
    assert {} == agent.ask("ping")["result"]
