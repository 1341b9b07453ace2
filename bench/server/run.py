"""What the server side of vnodes costs the engine: pods in memory, connections, scrapes with and without a handshake.

    python bench/server/run.py [--vnodes 1000] [--pods 8]

No control plane: who may call is answered at once, so that only the server side is measured. The caller is a process of
its own, 20 calls at a time.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import ssl
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import uvloop

from turbokube import procfs
from turbokube.api.transport import JSON, Response
from turbokube.vnode import objects
from turbokube.vnode.client import Client
from turbokube.vnode.metrics import Counts
from turbokube.vnode.nodes import Vnode
from turbokube.vnode.server import certificate
from turbokube.vnode.server.endpoints import Server
from turbokube.vnode.spec import Spec

_ROUNDS = ("with a handshake each", "again, on connections that were kept")
_WIDTH = 20  # calls at a time
_REQUEST = b"GET /metrics/resource HTTP/1.1\r\nHost: vnode\r\nAuthorization: Bearer token\r\n\r\n"


class Yes:
    """An API server that knows everybody and allows everything."""

    async def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        content_type: str = JSON,
        timeout: float = 30,
        accept: str = JSON,
    ) -> Response:
        return Response(201, b'{"status":{"authenticated":true,"user":{"username":"metrics-server"},"allowed":true}}')

    async def stream(self, path: str, accept: str = JSON) -> AsyncIterator[bytes]:
        yield b""

    async def close(self) -> None:
        pass


async def serve(spec: Spec, pods: int) -> None:
    """Be the engine's server side, have every vnode called twice, and tell what it took."""
    with tempfile.TemporaryDirectory() as folder:
        pem = certificate.ensure(Path(folder) / "serving.pem", spec.run)
        client = Client(Yes(), Counts(), 1.0)
        vnodes = {(name := spec.name(index)): Vnode(index, name, client) for index in range(spec.count)}
        server = Server(spec, vnodes, "v1.36.3", str(pem), None)
    before = procfs.memory().resident
    for vnode in vnodes.values():
        vnode.joined = True
        for number in range(pods):
            server.usage.see(_pod(vnode, number), vnode)
    known = procfs.memory().resident
    count, grown = spec.count * pods, known - before
    print(f"{count} pods: {grown / 1e6:.1f} MB, {grown / count:.0f} B each")
    serving = asyncio.create_task(server.run())
    argv = [sys.executable, __file__, "--vnodes", str(spec.count), "--call", str(spec.serve_port)]
    pipe = asyncio.subprocess.PIPE
    caller = await asyncio.create_subprocess_exec(*argv, stdin=pipe, stdout=pipe)
    assert caller.stdin is not None
    assert caller.stdout is not None
    await caller.stdout.readline()  # it has started
    for words in _ROUNDS:
        spent = time.process_time()
        caller.stdin.write(b"\n")
        line = (await caller.stdout.readline()).decode().strip()
        spent = time.process_time() - spent
        each, more = spent / spec.count * 1e3, (procfs.memory().resident - known) / 1e6
        print(f"{words}: {line}; {each:.2f} ms of CPU per vnode, {more:.1f} MB more")
    serving.cancel()
    caller.stdin.close()
    await caller.wait()


def _pod(vnode: Vnode, number: int) -> objects.Pod:
    raw = {
        "metadata": {
            "name": f"load-{vnode.index}-{number}",
            "namespace": "load",
            "uid": f"{vnode.index:032d}{number:04d}",
        },
        "spec": {"containers": [{"name": "pause", "image": "pause", "resources": {"requests": {"memory": "32Mi"}}}]},
        "status": {"phase": "Running"},
    }
    return msgspec.convert(raw, objects.Pod)


async def call(spec: Spec) -> None:
    """Scrape every vnode, as often as a line comes in."""
    context = ssl._create_unverified_context()
    kept: dict[int, tuple[asyncio.StreamReader, asyncio.StreamWriter]] = {}
    turn = asyncio.Semaphore(_WIDTH)
    read = 0

    async def scrape(index: int) -> None:
        nonlocal read
        async with turn:
            known = kept.pop(index, None)
            reader, writer = known or await asyncio.open_connection(spec.address(index), spec.serve_port, ssl=context)
            writer.write(_REQUEST)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            read += len(await reader.readexactly(int(head.partition(b"content-length: ")[2].split()[0])))
            if b"connection: close" in head:
                writer.close()
            else:
                kept[index] = reader, writer

    print(flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        began, read = time.monotonic(), 0
        await asyncio.gather(*(scrape(index) for index in range(spec.count)))
        seconds = time.monotonic() - began
        print(f"{spec.count} scrapes in {seconds:.2f} s, {read / 1e6:.1f} MB, {len(kept)} connections kept", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vnodes", type=int, default=1000)
    parser.add_argument("--pods", type=int, default=8, help="of each vnode")
    parser.add_argument("--call", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args()
    port = given.call
    if not port:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
    spec = Spec(run="bench", count=given.vnodes, serve=True, serve_port=port)
    uvloop.run(call(spec) if given.call else serve(spec, given.pods))


if __name__ == "__main__":
    main()
