"""What a control plane runs."""

from __future__ import annotations

import msgspec

from .transport import Transport


class Build(msgspec.Struct, frozen=True, rename="camel"):
    """What an API server says that it was built from; `git_version` is such as v1.36.3."""

    git_version: str
    git_commit: str = ""


async def server_build(transport: Transport, timeout: float = 30.0) -> Build:
    """Ask an API server, within so many seconds. Raises ApiError or Unreachable."""
    answer = await transport.request("GET", "/version", timeout=timeout)
    return msgspec.json.decode(answer.checked().body, type=Build)
