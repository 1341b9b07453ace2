"""Watches that are held: many at once, on connections of their own, begun and gone on with as client-go's are."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence

from turbokube.api import protobuf
from turbokube.api.http2 import Http2
from turbokube.api.transport import JSON, PROTOBUF, ApiError, Response, Unreachable
from turbokube.profile.phases import Read

from .pacing import Schedule, closed_loop, open_loop, pace
from .send import FORGIVEN_S
from .work import Context

_PER_CONNECTION = 10  # a client with a handful of informers has them all on one
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.8, 30.0  # between attempts, as client-go's reflectors have (cache/reflector.go)
_ANSWER_WITHIN_S = 30.0
_BOOKMARK, _ERROR = b'{"type":"BOOKMARK"', b'{"type":"ERROR"'
_VERSION = b'"resourceVersion":"'


class Holding:
    """All watches of a phase: each lists, watches from there, and is opened again whenever it ends.

    `listing`: namespace, intended time → resourceVersion. `path`: namespace, resourceVersion → what to watch.
    """

    def __init__(
        self,
        context: Context,
        resource: str,
        spaces: Sequence[str],
        listing: Callable[[str, float], Awaitable[str]],
        path: Callable[[str, str], str],
    ) -> None:
        assert isinstance(context.phase, Read)
        self._context = context
        self._phase = context.phase
        self._resource = resource
        self._spaces = spaces
        self._list = listing
        self._path = path
        self._asked = self._phase.held or self._phase.concurrency
        self._clients: list[Http2] = []
        self._first: list[asyncio.Event] = []  # each was open once
        self.held = 0
        self._counts = _Counts()

    def words(self) -> str:
        """How many are held."""
        return f"{self.held} of {self._asked} watches held"

    async def run(self, until: float) -> None:
        """Open them at the phase's rate or concurrency, and hold them until it was so long at work. Raises ApiError."""
        self._clients = [self._context.connect(number) for number in range(-(-self._asked // _PER_CONNECTION))]
        self._first = [asyncio.Event() for _ in range(self._asked)]
        work = asyncio.create_task(self._all())
        try:
            while not work.done() and (left := until - self._context.elapsed()) > 0:
                await asyncio.wait((work,), timeout=min(left, 1.0))
                self._write()
            if work.done():
                work.result()
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            self._write()
            for client in self._clients:
                await client.close()

    async def _all(self) -> None:
        phase = self._phase
        async with asyncio.TaskGroup() as group:

            async def begin(number: int, intended: float) -> None:
                group.create_task(self._hold(number, intended))
                await self._first[number].wait()

            if phase.rate:
                schedule = Schedule(pace(phase.rate, phase.seed), time.time(), self._context.gate)
                await open_loop(range(self._asked), begin, schedule)
            else:
                await closed_loop(range(self._asked), begin, phase.concurrency, self._context.gate)

    async def _hold(self, number: int, intended: float) -> None:
        namespace, client = self._spaces[number % len(self._spaces)], self._clients[number // _PER_CONNECTION]
        version, pause, refused_since = "", _FIRST_PAUSE_S, 0.0
        while True:
            if not version:
                version = await self._list(namespace, intended)
            watch, begun = _Watch(self), time.time()
            try:
                await self._watch(client, watch, self._path(namespace, version), number)
                refused_since = 0.0
                pause = _FIRST_PAUSE_S if time.time() - begun > 1.0 else pause
            except Unreachable:
                self._counts.failed += 1
                self._context.witness.nudge()
            except ApiError as error:
                now = time.time()
                if error.status in (401, 403) and now - (refused_since or now) < FORGIVEN_S:
                    refused_since = refused_since or now
                elif error.status < 500 and error.status not in (410, 429):
                    raise
                pause = max(pause, error.retry_after)
            version, intended = watch.version(version), time.time()
            if time.time() - begun < 1.0:
                await asyncio.sleep(pause * random.uniform(1.0, 2.0))
                pause = min(pause * 2, _LONGEST_PAUSE_S)

    async def _watch(self, client: Http2, watch: _Watch, path: str, number: int) -> None:
        """One request, from its sending to its end. Raises Unreachable, or ApiError when it is refused."""
        requests, again = self._context.requests, self._first[number].is_set()
        await self._context.gate.passed()
        intended = time.time()
        requests.meant(self._resource, "watch", intended)
        requests.add(self._resource, "watch", "sent")
        accept = f"{PROTOBUF};stream=watch,{JSON}" if self._phase.protobuf else JSON
        stream = client.open(path, accept, watch)
        try:
            await asyncio.wait_for(watch.opened.wait(), _ANSWER_WITHIN_S)
            if watch.status and watch.status < 300:
                requests.add(self._resource, "watch", "accepted", time.time() - intended)
                self._counts.resumed += again
                self._counts.opened += not again
                self._first[number].set()
            await watch.over.wait()
        except TimeoutError:
            raise Unreachable("no answer in time", sent=True) from None
        finally:
            client.cancel(stream)
            watch.close()
        if watch.status >= 300:
            requests.add(self._resource, "watch", "throttled" if watch.status == 429 else "retried")
            raise Response(watch.status, watch.rest, watch.retry_after).error()
        if watch.why:
            requests.add(self._resource, "watch", "retried")
            raise Unreachable(watch.why, sent=True)

    def took(self, events: int, size: int) -> None:
        """Count what a watch has brought."""
        self._counts.events += events
        self._counts.bytes += size

    def _write(self) -> None:
        counts, self._counts = self._counts, _Counts()
        row = (counts.opened, counts.resumed, counts.failed, counts.events, counts.bytes)
        name = self._context.phase.name
        self._context.writer.insert("watches", [(name, int(time.time()), self._resource, self.held, *row)])


class _Counts:
    """Since they were last written."""

    def __init__(self) -> None:
        self.opened = self.resumed = self.failed = self.events = self.bytes = 0


class _Watch:
    """What is heard of one watch: counted as it comes, and nothing kept but where it stands."""

    __slots__ = ("_all", "_frames", "_last", "_open", "opened", "over", "rest", "retry_after", "status", "why")

    def __init__(self, all_: Holding) -> None:
        self._all = all_
        self._open = False
        self._last = b""  # the last event
        self.rest = b""  # an event that has not come whole, or a refusal's body
        self._frames = False  # of protobuf
        self.opened = asyncio.Event()
        self.over = asyncio.Event()
        self.status = 0
        self.retry_after = 0.0
        self.why = ""

    # the connection's listener

    def head(self, status: int, retry_after: float) -> None:
        self.status, self.retry_after = status, retry_after
        if status < 300:
            self._open = True
            self._all.held += 1
        self.opened.set()

    def data(self, chunk: bytes) -> None:
        data = self.rest + chunk if self.rest else chunk
        if self.status >= 300:
            self.rest = data
            return
        if not self._last and not self._frames:
            self._frames = not data.startswith(b"{")
        events = self._take_frames(data) if self._frames else self._take_lines(data)
        self._all.took(events, len(chunk))

    def ended(self, why: str) -> None:
        self.why = why or ("" if self.status else "an end without an answer")
        self.close()
        self.opened.set()
        self.over.set()

    # inside

    def close(self) -> None:
        """It is not held any more."""
        self._all.held -= self._open
        self._open = False

    def _take_lines(self, data: bytes) -> int:
        end = data.rfind(b"\n")
        if end < 0:
            self.rest = data
            return 0
        self._last = data[data.rfind(b"\n", 0, end) + 1 : end]
        self.rest = data[end + 1 :]
        return data.count(b"\n") - data.count(_BOOKMARK)

    def _take_frames(self, data: bytes) -> int:
        frames, self.rest = protobuf.frames(data)
        if frames:
            self._last = frames[-1]
        return sum(not frame.startswith(b"\n\x08BOOKMARK") for frame in frames)

    def version(self, before: str) -> str:
        """Where the next watch begins; "" when only a list can tell."""
        if self.status == 410 or not before:
            return ""
        if not self._last:
            return before
        if self._frames:
            kind, made = protobuf.event(self._last)
            return "" if kind == "ERROR" else protobuf.resource_version(made).decode()
        if self._last.startswith(_ERROR):
            return ""
        at = self._last.find(_VERSION) + len(_VERSION)
        return self._last[at : self._last.index(b'"', at)].decode()
