"""Bytes of a stream in, lines out: what the transports' watches have in common."""

from __future__ import annotations

import asyncio

from .transport import Response, Unreachable


class Lines:
    """An answer that stays open, between the connection that hears it and the one who reads it line by line."""

    def __init__(self) -> None:
        self.status = 0
        self.retry_after = 0.0
        self._why: str | None = None  # None: open; "": the server ended it; else: why it broke
        self._parts: list[bytes] = []
        self._rest = b""  # a line that has not come whole, or the body of a refusal
        self._wake = asyncio.Event()

    # what the connection calls

    def head(self, status: int, retry_after: float) -> None:
        self.status, self.retry_after = status, retry_after

    def data(self, chunk: bytes) -> None:
        self._parts.append(chunk)
        self._wake.set()

    def ended(self, why: str) -> None:
        """Nothing follows; the first to say so says why."""
        if self._why is None:
            self._why = why
        self._wake.set()

    # what the reader calls

    async def lines(self) -> list[bytes] | None:
        """What has come since the last call, without newlines, awaited if there is nothing; None at the end."""
        while not self._parts:
            if self._why is not None:
                return None
            self._wake.clear()
            await self._wake.wait()
        data = self._rest + b"".join(self._parts)
        self._parts.clear()
        if self.status >= 300:
            self._rest = data
            return []
        *lines, self._rest = data.split(b"\n")
        return lines

    def check(self, sent: bool) -> None:
        """After the end. Raises Unreachable, `sent` as told, for a stream that broke and ApiError for a refusal."""
        if self._why:
            raise Unreachable(self._why, sent=sent)
        if self.status >= 300:
            raise Response(self.status, self._rest, self.retry_after).error()
