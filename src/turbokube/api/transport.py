"""What every caller knows of the way to an API server; which protocol carries it is the implementation's business."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

import msgspec

from . import protobuf

JSON = "application/json"
PROTOBUF = "application/vnd.kubernetes.protobuf"  # of a watch's answer: with ";stream=watch" behind it
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"


class Unreachable(Exception):
    """No answer came: refused, reset, timed out. `sent` is False when nothing left this machine."""

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class ApiError(Exception):
    """An API server's refusal. `status` is HTTP's; `reason` and `message` are the Status object's."""

    def __init__(self, status: int, reason: str, message: str, retry_after: float = 0.0) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after


_STATUS = msgspec.json.Decoder(protobuf.Status)


class Response:
    """An answer, whatever its status. `retry_after` in seconds, 0 when not given."""

    __slots__ = ("body", "retry_after", "status")

    def __init__(self, status: int, body: bytes, retry_after: float = 0.0) -> None:
        self.status = status
        self.body = body
        self.retry_after = retry_after

    @property
    def ok(self) -> bool:
        return self.status < 300

    def error(self) -> ApiError:
        """The refusal as an exception, with the server's own words."""
        try:
            said = protobuf.status(self.body) if self.body.startswith(protobuf.MAGIC) else _STATUS.decode(self.body)
        except (msgspec.MsgspecError, protobuf.ProtobufError):
            said = protobuf.Status(message=self.body[:200].decode(errors="replace"))
        return ApiError(self.status, said.reason, said.message, self.retry_after)

    def checked(self) -> Response:
        """Itself when accepted; raises ApiError when refused."""
        if not self.ok:
            raise self.error()
        return self


class Transport(Protocol):
    """Requests and streams to the API servers of one target with one identity."""

    async def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        content_type: str = JSON,
        timeout: float = 30.0,
        accept: str = JSON,
    ) -> Response:
        """One request, one answer. Raises Unreachable when none came within `timeout` seconds."""
        ...

    def stream(self, path: str, accept: str = JSON) -> AsyncIterator[bytes]:
        """The lines of a GET that stays open. Raises ApiError if refused; ends when the server ends it."""
        ...

    async def close(self) -> None:
        """Close every connection."""
        ...
