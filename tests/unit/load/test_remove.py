"""Removing a load: an API server that it was too much for is waited for, one that never answered is not."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from turbokube.api.transport import Response, Unreachable
from turbokube.load import remove


class Server:
    def __init__(self, *answers: int) -> None:
        self.answers = list(answers)  # statuses; 0: none

    async def request(self, method: str, path: str) -> Response:
        if not (status := self.answers.pop(0)):
            raise Unreachable("away", sent=False)
        return Response(status, b"")


def ask(server: Any, seconds: float, times: int) -> list[int]:
    async def work() -> list[int]:
        patient = remove._Patient(server, time.monotonic() + seconds)
        return [(await patient.request("GET", "/")).status for _ in range(times)]

    return asyncio.run(work())


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remove, "_LOOK_EVERY_S", 0.001)


def test_one_that_was_there_is_waited_for() -> None:
    assert ask(Server(200, 0, 503, 0, 200, 404), 60, 3) == [200, 200, 404]


@pytest.mark.parametrize(("answers", "seconds"), [((0, 200), 60), ((200, 0, 200), 0)])
def test_one_that_never_answered_is_not_nor_is_any_without_end(answers: tuple[int, ...], seconds: float) -> None:
    with pytest.raises(Unreachable):
        ask(Server(*answers), seconds, 2)
