"""Requests of the engine, counted by verb, resource and code."""

from __future__ import annotations

from ..api.transport import JSON, Response, Transport, Unreachable
from .metrics import Counts


class Client:
    """A transport whose requests are counted. All vnodes share one at `lease`; above it each has its own.

    `accept` is what answers come in unless a call says otherwise.
    """

    __slots__ = ("_requests", "_timeout", "accept", "counts", "transport")

    def __init__(self, transport: Transport, counts: Counts, timeout: float, accept: str = JSON) -> None:
        self.transport = transport
        self.counts = counts
        self.accept = accept
        self._timeout = timeout
        self._requests = counts.requests

    async def call(
        self,
        verb: str,
        resource: str,
        method: str,
        path: str,
        body: bytes = b"",
        content_type: str = JSON,
        *,
        accept: str = "",
        timeout: float = 0.0,
    ) -> Response:
        """One request, whatever its status. Raises Unreachable. `accept` and `timeout` in place of the client's own."""
        try:
            answer = await self.transport.request(
                method, path, body, content_type, timeout or self._timeout, accept or self.accept
            )
        except Unreachable:
            self._requests[verb, resource, "unreachable"] += 1
            raise
        self._requests[verb, resource, str(answer.status)] += 1
        return answer
