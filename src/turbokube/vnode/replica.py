"""An engine process that is a pod of a StatefulSet: `python -m turbokube.vnode.replica`, steered by nobody.

It has the block of vnodes that its ordinal says. What it is told comes in START (`spec.Start`, a file of a Secret),
its ordinal in the environment. /readyz of its port is good while all of its vnodes are Ready in the target, /livez
while its event loop turns; /metrics is what an engine process tells anywhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from pathlib import Path

import msgspec
import uvloop

from . import files, metrics
from .engine import Engine, await_build, settle
from .spec import Start

ORDINAL = "TURBOKUBE_ORDINAL"  # environment: the pod's number in its StatefulSet
FOLDER = Path("/etc/turbokube")
START = "start.json"
PORT = 10255  # as workload/pods.py has it


def main() -> None:
    """Run until told to stop; the Nodes stay where they are, for the replica that follows."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    start = msgspec.json.decode((FOLDER / START).read_bytes(), type=Start)
    start = msgspec.structs.replace(start, shard=int(os.environ[ORDINAL]))
    try:
        uvloop.run(serve(start, "0.0.0.0", PORT))
    except BaseExceptionGroup as group:  # the first cause in one line
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        logging.error("%s: %s", type(error).__name__, error)
        sys.exit(1)


async def serve(start: Start, host: str, port: int) -> None:
    """Have the block's vnodes until SIGTERM."""
    spec = start.spec.part(start.shard)
    files.allow(spec)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    engines: list[Engine] = []
    # before there is a target: who waits for one lives
    server = await metrics.serve(
        lambda: engines[0].metrics() if engines else "",
        port,
        host,
        {"/livez": str, "/readyz": lambda: missing(engines)},
    )
    ended = asyncio.create_task(stop.wait())
    work = asyncio.create_task(_work(start, engines))
    await asyncio.wait({work, ended}, return_when=asyncio.FIRST_COMPLETED)
    work.cancel()
    try:
        with contextlib.suppress(asyncio.CancelledError):
            await work
    finally:
        ended.cancel()
        for engine in engines:
            await engine.close()
        server.close()


async def _work(start: Start, engines: list[Engine]) -> None:
    build = await await_build(start.credential, start.servers)
    engines.append(Engine(start.spec.part(start.shard), start.credential, start.servers, build))
    settle()
    await engines[0].run()


def missing(engines: list[Engine]) -> str:
    """Why a replica is not ready; empty when it is."""
    if not engines:
        return "the target's API server does not answer"
    status = engines[0].status()
    if status["conflict"]:
        return str(status["conflict"])
    if status["synced"] and status["ready"] + status["excused"] == status["wanted"]:
        return ""
    return f"{status['ready']} of {status['wanted']} vnodes are Ready in the target"


if __name__ == "__main__":
    main()
