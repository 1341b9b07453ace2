"""Requests of the engine, counted by verb, resource and code."""

from __future__ import annotations

from ..api.transport import JSON, Response, Transport, Unreachable
from .metrics import Counts


class Client:
    """A transport whose requests are counted. All vnodes share one at `lease`; above it each has its own."""

    __slots__ = ("_requests", "_timeout", "counts", "transport")

    def __init__(self, transport: Transport, counts: Counts, timeout: float) -> None:
        self.transport = transport
        self.counts = counts
        self._timeout = timeout
        self._requests = counts.requests

    async def call(
        self, verb: str, resource: str, method: str, path: str, body: bytes = b"", content_type: str = JSON
    ) -> Response:
        """One request, whatever its status. Raises Unreachable."""
        try:
            answer = await self.transport.request(method, path, body, content_type, self._timeout)
        except Unreachable:
            self._requests[verb, resource, "unreachable"] += 1
            raise
        self._requests[verb, resource, str(answer.status)] += 1
        return answer
