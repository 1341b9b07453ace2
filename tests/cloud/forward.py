"""Forward TCP connections to backends in turn: forward.py ADDRESS PORT BACKEND..."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import sys


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One way, to its end."""
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.close()


async def main(address: str, port: int, backends: list[str]) -> None:
    """Serve as long as who began it is there; a backend that refuses is passed over."""
    turn = itertools.cycle(backends)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for backend in itertools.islice(turn, len(backends)):
            try:
                there = await asyncio.wait_for(asyncio.open_connection(backend, port), 2)
            except (OSError, TimeoutError):
                continue
            await asyncio.gather(copy(reader, there[1]), copy(there[0], writer))
            return
        writer.close()

    parent = os.getppid()
    async with await asyncio.start_server(serve, address, port):
        while os.getppid() == parent:
            await asyncio.sleep(1)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3:]))
