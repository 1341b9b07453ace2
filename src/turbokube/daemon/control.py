"""Steering a daemon: one JSON object a line over a unix socket that only its owner can open."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import socket
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

Handler = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


class ControlError(Exception):
    """The daemon refused, or could not be asked. The message is meant for the user."""


def socket_path(state: Path, name: str) -> Path:
    """Where daemon `name` of a run listens: short, since a socket's path has 107 bytes at most, in a 0700 folder."""
    folder = _runtime() / f"turbokube-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise ControlError(f"{folder} belongs to another user; remove it or set XDG_RUNTIME_DIR")
    return folder / f"{hashlib.sha256(str(state.resolve()).encode()).hexdigest()[:12]}-{name}.sock"


def _runtime() -> Path:
    """The same for a service and for who steers it: root's XDG_RUNTIME_DIR goes with root's last session."""
    if os.getuid() == 0 and os.path.isdir("/run/systemd/system"):  # sd_booted(3)
        return Path("/run")
    return Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())


def call(path: Path, request: dict[str, Any], *, timeout: float = 30.0) -> dict[str, Any]:
    """Ask a daemon and wait for its answer. Raises ControlError when it refuses, ConnectionError when none listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        try:
            connection.connect(str(path))
            connection.sendall(msgspec.json.encode(request) + b"\n")
            with connection.makefile("rb") as file:
                line = file.readline()
        except TimeoutError:
            raise ControlError(f"{path.stem} did not answer within {timeout:g} s") from None
        except OSError as error:
            raise ConnectionError(f"{path.stem}: {error.strerror or error}") from None
    if not line:
        raise ConnectionError(f"{path.stem} closed the connection")
    answer: dict[str, Any] = msgspec.json.decode(line)
    if "error" in answer:
        raise ControlError(answer["error"])
    return answer


@contextlib.asynccontextmanager
async def serve(path: Path, handler: Handler) -> Any:
    """Answer requests while the block runs. A ControlError of the handler becomes the caller's."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                try:
                    answer = await handler(msgspec.json.decode(line))
                except ControlError as error:
                    answer = {"error": str(error)}
                writer.write(msgspec.json.encode(answer) + b"\n")
                await writer.drain()
        except ConnectionError:
            pass  # the caller went away
        finally:
            writer.close()

    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    mask = os.umask(0o177)
    try:
        server = await asyncio.start_unix_server(talk, str(path), limit=16 * 1024 * 1024)
    finally:
        os.umask(mask)
    try:
        yield server
    finally:
        server.close()
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
