"""Workers that do a job until it works."""

from __future__ import annotations

import asyncio

import pytest

from turbokube.api.transport import ApiError, Unreachable
from turbokube.vnode import crew
from turbokube.vnode.crew import Crew


def test_a_job_is_done_for_each_by_so_many_at_once_and_again_where_the_server_was_at_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(crew, "_FIRST_PAUSE", 0.001)
    trouble = {2: Unreachable("away", sent=False), 5: ApiError(503, "", ""), 7: ApiError(422, "", "")}
    done: list[int] = []
    under_way: list[int] = []

    async def job(number: int) -> None:
        under_way.append(number)
        assert len(under_way) <= 3
        await asyncio.sleep(0)
        under_way.remove(number)
        if error := trouble.pop(number, None):
            raise error
        done.append(number)

    asyncio.run(Crew(3).each(job, range(10)))
    assert sorted(done) == [0, 1, 2, 3, 4, 5, 6, 8, 9]  # 7 was refused for good


def test_what_is_put_first_is_done_before_what_waits() -> None:
    done: list[str] = []

    async def job(name: str) -> None:
        done.append(name)
        if name == "join 0":
            some.put_first(job, "report 0")

    async def work() -> None:
        for number in range(3):
            some.put(job, f"join {number}")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(some.run(), 0.05)

    some = Crew(1)
    asyncio.run(work())
    assert done == ["join 0", "report 0", "join 1", "join 2"]
