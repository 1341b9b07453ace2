"""A few workers and a queue: bounded concurrency towards the API server, and patience while it is away."""

from __future__ import annotations

import asyncio
import collections
import logging
import random
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

from ..api.transport import ApiError, Unreachable

_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 2.0  # seconds; a server that is back is noticed within the longer
log = logging.getLogger(__name__)
T = TypeVar("T")


def transient(error: ApiError) -> bool:
    """Whether the same request may succeed later: a lost race, throttled, or the server's own trouble.

    401 and 403 too: an API server that has just started answers before it knows who may do what.
    """
    return error.status in (401, 403, 409, 429) or error.status >= 500


class Crew:
    """`size` workers that take jobs, oldest first unless they are put first.

    A job whose server is away, throttles or fails is done again by its worker until it works; so an outage is met by
    `size` tries per pause and its end by `size` requests at once, however many jobs are waiting.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._jobs: collections.deque[tuple[Callable[..., Awaitable[None]], tuple[Any, ...]]] = collections.deque()
        self._idle: collections.deque[asyncio.Future[None]] = collections.deque()

    def __len__(self) -> int:
        return len(self._jobs)

    def put(self, job: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        """Queue a job. It must look anew at the state of the world each time that it is called."""
        self._jobs.append((job, arguments))
        self._call()

    def put_first(self, job: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        """Queue a job before those that wait: what has begun comes to its end before more begins."""
        self._jobs.appendleft((job, arguments))
        self._call()

    def _call(self) -> None:
        while self._idle:
            if not (called := self._idle.popleft()).done():
                called.set_result(None)
                return

    async def each(self, job: Callable[[T], Awaitable[None]], things: Iterable[T]) -> None:
        """Do a job for all of them at once, beside what is queued, by as many workers again; wait until all is done."""
        left = iter(things)

        async def work() -> None:
            for thing in left:
                await self._persist(job, (thing,))

        await asyncio.gather(*(work() for _ in range(self.size)))

    async def run(self) -> None:
        """Work for ever."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self.size):
                group.create_task(self._work())

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            while not self._jobs:
                called = loop.create_future()
                self._idle.append(called)
                await called
            job, arguments = self._jobs.popleft()
            await self._persist(job, arguments)

    async def _persist(self, job: Callable[..., Awaitable[None]], arguments: tuple[Any, ...]) -> None:
        pause = _FIRST_PAUSE
        while True:
            least = 0.0
            try:
                return await job(*arguments)
            except Unreachable:
                pass
            except ApiError as error:
                if error.status not in (409, 429) and pause == _FIRST_PAUSE:
                    log.warning("%s: %s", getattr(job, "__name__", "job"), error)
                if not transient(error):
                    return
                least = error.retry_after
            await asyncio.sleep(max(least, pause * random.uniform(0.5, 1.0)))
            pause = min(pause * 2, _LONGEST_PAUSE)
