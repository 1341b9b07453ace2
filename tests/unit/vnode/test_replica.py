"""A replica's probes: not ready without a target or with a vnode missing, alive all the same."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

from turbokube.api.credentials import Credential
from turbokube.vnode import metrics, replica
from turbokube.vnode.spec import Spec, Start


class Engine:
    def __init__(self, **changes: Any) -> None:
        whole = {"synced": True, "ready": 64, "excused": 0, "wanted": 64, "conflict": ""}
        self._status = whole | changes

    def status(self) -> dict[str, Any]:
        return self._status


async def get(port: int, path: str) -> tuple[int, str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()
    return int(head.split()[1]), body.strip()


def test_a_replica_is_ready_when_all_of_its_vnodes_are():
    def words(*engines: Any) -> str:
        return replica.missing(list(engines))

    assert words(Engine()) == ""
    assert words(Engine(ready=60, excused=4)) == ""
    assert words(Engine(ready=63)) == "63 of 64 vnodes are Ready in the target"
    assert words(Engine(synced=False)) != ""
    assert words(Engine(conflict="a node of others")) == "a node of others"
    assert "does not answer" in words()


def test_probes_are_answered_beside_metrics():
    async def ask() -> list[tuple[int, str]]:
        probes = {"/readyz": lambda: "not yet", "/livez": str}
        server = await metrics.serve(lambda: "m 1\n", 0, probes=probes)
        port = server.sockets[0].getsockname()[1]
        found = [await get(port, path) for path in ("/readyz", "/livez", "/metrics", "/else", "/metricsx")]
        server.close()
        return found

    assert asyncio.run(ask()) == [
        (503, "not yet"),
        (200, "ok"),
        (200, "m 1"),
        (404, "see /metrics"),
        (404, "see /metrics"),
    ]


def test_a_replica_without_a_target_lives_and_is_not_ready_and_ends_when_told():
    async def live() -> tuple[tuple[int, str], tuple[int, str]]:
        start = Start(Spec(run="trial", count=0, block=8), Credential("http://127.0.0.1:9"), ["http://127.0.0.1:9"], 1)
        port = _free()
        serving = asyncio.create_task(replica.serve(start, "127.0.0.1", port))
        await asyncio.sleep(0.1)
        found = await get(port, "/livez"), await get(port, "/readyz")
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(serving, 5)
        return found

    alive, ready = asyncio.run(live())
    assert alive == (200, "ok")
    assert ready == (503, "the target's API server does not answer")


def _free() -> int:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port
