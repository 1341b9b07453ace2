"""Relays in front of an API server: what a node opens and sends is counted, whoever plays the node.

A relay copies bytes; TLS and HTTP/2 go through it as they are. Its listeners may be in other network namespaces, which
is how nodes in namespaces of their own reach an API server on this machine's loopback.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import uvloop

_CLONE_NEWNET = 0x40000000


@dataclass
class Counts:
    """Connections of one listener, and the bytes on the wire above TCP: `up` to the API server, `down` from it."""

    opened: int = 0
    now: int = 0
    up: int = 0
    down: int = 0


class Relay:
    """Listeners at 127.0.0.1 that lead to one port of this machine's 127.0.0.1. Runs in a thread of its own."""

    def __init__(self, port: int) -> None:
        self._upstream = port
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay", daemon=True)
        self._thread.start()

    def listen(self, namespace: Path | None = None, port: int = 0) -> tuple[int, Counts]:
        """A listener, in the network namespace of this file; its port and its counts, which go on changing."""
        counts = Counts()
        with _inside(namespace):
            listener = socket.create_server(("127.0.0.1", port), backlog=1024)
        listener.setblocking(False)
        asyncio.run_coroutine_threadsafe(self._serve(listener, counts), self._loop).result()
        return listener.getsockname()[1], counts

    def close(self) -> None:
        """Cut all connections."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    async def _serve(self, listener: socket.socket, counts: Counts) -> None:
        await self._loop.create_server(lambda: _Near(self._loop, self._upstream, counts), sock=listener)


class _Near(asyncio.Protocol):
    """The node's end of a connection."""

    def __init__(self, loop: asyncio.AbstractEventLoop, upstream: int, counts: Counts) -> None:
        self._loop = loop
        self._upstream = upstream
        self.counts = counts
        self.transport: asyncio.Transport | None = None
        self.far: asyncio.Transport | None = None
        self._early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self.counts.opened += 1
        self.counts.now += 1
        self._task = self._loop.create_task(self._connect())

    async def _connect(self) -> None:
        try:
            await self._loop.create_connection(lambda: _Far(self), "127.0.0.1", self._upstream)
        except OSError:
            if self.transport:
                self.transport.abort()

    def reached(self, far: asyncio.Transport) -> None:
        """The API server has taken the connection."""
        self.far = far
        for data in self._early:
            far.write(data)
        self._early.clear()
        if self.transport is None:
            far.close()

    def data_received(self, data: bytes) -> None:
        self.counts.up += len(data)
        if self.far:
            self.far.write(data)
        else:
            self._early.append(data)

    def connection_lost(self, error: Exception | None) -> None:
        self.counts.now -= 1
        self.transport = None
        if self.far:
            self.far.close()


class _Far(asyncio.Protocol):
    """The API server's end of a connection."""

    def __init__(self, near: _Near) -> None:
        self._near = near

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._near.reached(cast(asyncio.Transport, transport))

    def data_received(self, data: bytes) -> None:
        self._near.counts.down += len(data)
        if self._near.transport:
            self._near.transport.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        if self._near.transport:
            self._near.transport.close()


@contextlib.contextmanager
def _inside(namespace: Path | None) -> Iterator[None]:
    """This thread in another network namespace: sockets made here stay in it."""
    if namespace is None:
        yield
        return
    with open("/proc/thread-self/ns/net") as home, open(namespace) as there:
        _enter(there.fileno())
        try:
            yield
        finally:
            _enter(home.fileno())


def _enter(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
