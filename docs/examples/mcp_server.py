"""An MCP server for coding agents: they submit jobs, wait for them, read logs and artifacts.

python docs/examples/mcp_server.py WORKSPACE

It speaks MCP on stdin and stdout. When its agent closes stdin or sends TERM, it cancels its jobs
and exits. If a server is killed, the next one continues its jobs; `submit` with the same key
finds them.
"""

import json
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import trio

from orchestrator import JobSpec, Orchestrator, PikaciError, Settings
from orchestrator.log_end import read_log_end

JOB = {"job": {"type": "string"}}
COMMAND = {"command": {"type": "string"}, "key": {"type": "string"}}
# Its text and its arguments, of which the first is required.
TOOLS: dict[str, tuple[str, dict[str, Any]]] = {
    "submit": (
        "Run a shell command in a throw-away guest that sees the workspace read-only. Other keys of"
        ' a job may follow: timeout_secs, artifacts (globs below /artifacts: ["*"]), scratch, ...'
        " Returns the job's id. A key is submitted once.",
        COMMAND,
    ),
    "wait": ("Wait until the job has ended, and return its verdict and exit code.", JOB),
    "log_tail": ("The last lines of the job's output, also while it runs.", JOB),
    "artifacts": ("The paths of the files that the job left.", JOB),
    "cancel": ("Cancel the job.", JOB),
}


async def call(pikaci: Orchestrator, tool: str, given: dict[str, Any]) -> str:
    if tool == "submit":
        key = given.pop("key", "")
        job = await pikaci.submit(msgspec.convert(given, JobSpec), key=key)
        return job.id
    job = await pikaci.find_job(given["job"])
    directory = await job.fetch_directory()
    if tool == "wait":
        ended = await job.wait()
        why = ended.failure.message if ended.failure else ended.message
        return f"{ended.verdict}, exit code {ended.exit_code}: {why}"
    if tool == "log_tail":
        return read_log_end(directory / "guest.log").text
    if tool == "artifacts":
        found = await job.artifacts()
        return "\n".join(str(directory / "artifacts" / file.path) for file in found.files)
    await job.cancel(reason="its agent asked for it")
    return "cancelled"


async def answer(pikaci: Orchestrator, method: str, params: dict[str, Any]) -> dict[str, Any]:
    if method == "initialize":
        about = {"name": "pikaci", "version": "1"}
        version = params.get("protocolVersion", "2025-06-18")
        return {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": about}
    if method == "tools/list":
        tools = [
            {
                "name": name,
                "description": text,
                "inputSchema": {
                    "type": "object",
                    "properties": keys,
                    "required": list(keys)[:1],
                },
            }
            for name, (text, keys) in TOOLS.items()
        ]
        return {"tools": tools}
    if method == "tools/call" and params.get("name") in TOOLS:
        try:
            text, failed = await call(pikaci, params["name"], dict(params["arguments"])), False
        except (PikaciError, msgspec.ValidationError, KeyError) as error:
            text, failed = str(error), True
        return {"content": [{"type": "text", "text": text}], "isError": failed}
    if method == "ping":
        return {}
    raise NotImplementedError(method)


async def serve(pikaci: Orchestrator, say: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
    """Answer until stdin ends; a `wait` does not keep other requests waiting."""
    calls: dict[Any, trio.CancelScope] = {}

    async def one(id: Any, method: str, params: dict[str, Any]) -> None:
        with calls.setdefault(id, trio.CancelScope()):
            try:
                told = {"result": await answer(pikaci, method, params)}
            except NotImplementedError:
                told = {"error": {"code": -32601, "message": f"{method}: not found"}}
            await say({"jsonrpc": "2.0", "id": id, **told})
        del calls[id]

    async with trio.lowlevel.FdStream(0) as stdin, trio.open_nursery() as nursery:
        rest = b""
        async for data in stdin:
            *lines, rest = (rest + data).split(b"\n")
            for request in (json.loads(line) for line in lines if line.strip()):
                params = request.get("params", {})
                if "id" in request:
                    nursery.start_soon(one, request["id"], request["method"], params)
                elif request.get("method") == "notifications/cancelled":
                    calls.get(params.get("requestId"), trio.CancelScope()).cancel()
        nursery.cancel_scope.cancel()


async def main(workspace: Path) -> None:
    stdout = trio.wrap_file(sys.stdout)
    saying = trio.Lock()

    async def say(message: dict[str, Any]) -> None:
        async with saying:
            await stdout.write(json.dumps(message) + "\n")
            await stdout.flush()

    async def stop_on_term() -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for _ in signals:
                nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stop_on_term)
        async with Orchestrator.open(Settings(workspace=workspace)) as pikaci:
            await serve(pikaci, say)
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]))
