"""A transport that answers from a table, and remembers what it was asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec

from turbokube.api.transport import JSON, Response, Unreachable
from turbokube.vnode.objects import Pod


class FakeTransport:
    """`answer` of (method, path, body) is a Response, or an exception to raise."""

    def __init__(self, answer: Callable[[str, str, bytes], Response | Exception]) -> None:
        self.answer = answer
        self.asked: list[tuple[str, str, bytes]] = []

    async def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        content_type: str = JSON,
        timeout: float = 30.0,
        accept: str = JSON,
    ) -> Response:
        await asyncio.sleep(0)
        self.asked.append((method, path, body))
        said = self.answer(method, path, body)
        if isinstance(said, Exception):
            raise said
        return said

    async def stream(self, path: str) -> AsyncIterator[bytes]:
        raise Unreachable("no streams here", sent=False)
        yield b""

    async def close(self) -> None:
        pass


async def until(done: Callable[[], bool], seconds: float = 5.0) -> None:
    """Wait for it, or fail."""
    async with asyncio.timeout(seconds):
        while not done():
            await asyncio.sleep(0.005)


def a_pod(containers: str = "a", policy: str = "Always", status: dict[str, Any] | None = None, **meta: Any) -> Pod:
    """A pod with containers of these one-letter names on vnode 3."""
    raw = {
        "metadata": {"name": "p", "namespace": "ns", "uid": "u-1", "generation": 1, "resourceVersion": "77", **meta},
        "spec": {
            "nodeName": "vnode-00003",
            "restartPolicy": policy,
            "containers": [{"name": name, "image": "host:5000/pause:3"} for name in containers],
        },
        "status": status or {"phase": "Pending"},
    }
    return msgspec.convert(raw, Pod)
