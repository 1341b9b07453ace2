"""Sending one object until the API server has it, or has refused it, and the account of every request."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from datetime import datetime

import msgspec

from turbokube.api.transport import ApiError, Transport, Unreachable
from turbokube.bundle.ledger import Entry, Ledger
from turbokube.bundle.writer import Writer

from .pacing import Gate
from .phase import RUN_LABEL

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0  # back-off of retries, as client-go's reflectors do within an order

# An API server that has just started refuses everybody until it has read its RBAC objects: no refusal before so long
_FORGIVEN_S = 10.0


class _Metadata(msgspec.Struct, rename="camel"):
    creation_timestamp: datetime
    labels: dict[str, str] = {}


class _Found(msgspec.Struct):
    metadata: _Metadata


_FOUND = msgspec.json.Decoder(_Found)


class Requests:
    """Sums of the generator's requests by second, resource and verb; written once the second is over."""

    def __init__(self, writer: Writer, phase: str) -> None:
        self._writer = writer
        self._phase = phase
        self._sums: dict[tuple[int, str, str], list[float]] = {}

    def add(self, resource: str, verb: str, what: str, latency: float = 0.0) -> None:
        """Count one of sent, accepted, throttled, retried, failed; `latency` (seconds, from intended) if accepted."""
        row = self._sums.setdefault((int(time.time()), resource, verb), [0, 0, 0, 0, 0, 0.0, 0.0])
        row[("sent", "accepted", "throttled", "retried", "failed").index(what)] += 1
        row[5] += latency
        row[6] = max(row[6], latency)

    def write(self, *, everything: bool = False) -> None:
        """Hand over the seconds that are over."""
        now = int(time.time())
        done = [key for key in self._sums if everything or key[0] < now]
        self._writer.insert("requests", [(self._phase, *key, *self._sums.pop(key)) for key in done])


class Sender:
    """Creates objects with the load's own identity. `trouble` is told when no server answers.

    `lag` is the worst delay (seconds) between the intended and the first sending since it was last read.
    """

    def __init__(
        self, transport: Transport, ledger: Ledger, requests: Requests, gate: Gate, trouble: Callable[[], None]
    ) -> None:
        self._transport = transport
        self._ledger = ledger
        self._requests = requests
        self._gate = gate
        self._trouble = trouble
        self.lag = 0.0
        self.refusal = ""  # the last refusal's words

    async def create(self, entry: Entry, resource: str, path: str, body: bytes, run: str) -> bool:
        """Whether the API server has the object. Tries for ever where trying again can help."""
        before = entry.sent is not None  # an earlier agent sent it and died before the answer was kept
        intended = entry.intended or time.time()
        unanswered, pause, forbidden_since = False, _FIRST_PAUSE_S, 0.0
        while True:
            await self._gate.passed()
            now = time.time()
            if entry.sent is None:
                entry.intended, entry.sent = intended, now
                self.lag = max(self.lag, now - intended)
                self._ledger.save(entry)
            self._requests.add(resource, "create", "sent")
            try:
                answer = await self._transport.request("POST", path, body)
            except Unreachable as error:
                unanswered = unanswered or error.sent
                self._trouble()
                pause = await self._again(entry, resource, pause)
                continue
            entry.status = answer.status
            if answer.ok:
                return self._accepted(entry, resource, time.time())
            if answer.status == 429:
                entry.throttled += 1
                self._requests.add(resource, "create", "throttled")
                await asyncio.sleep(answer.retry_after or 1.0)
            elif answer.status >= 500:
                pause = await self._again(entry, resource, pause, answer.retry_after)
            elif answer.status in (401, 403) and now - (forbidden_since or now) < _FORGIVEN_S:
                forbidden_since = forbidden_since or now
                pause = await self._again(entry, resource, pause)
            elif answer.status == 409 and (created := await self._look_up(f"{path}/{entry.name}", run)):
                # ours: either our own lost answer, or sent by an agent that is no more
                return self._found(entry, resource, None if unanswered and not before else created)
            else:
                return self._failed(entry, resource, answer.error())

    async def _again(self, entry: Entry, resource: str, pause: float, at_least: float = 0.0) -> float:
        entry.retries += 1
        self._requests.add(resource, "create", "retried")
        await asyncio.sleep(max(at_least, pause * random.uniform(0.5, 1.0)))
        return min(pause * 2, _LONGEST_PAUSE_S)

    async def _look_up(self, path: str, run: str) -> float | None:
        """When the object of this name was created; None if it is not of this run."""
        while True:
            try:
                answer = await self._transport.request("GET", path)
            except Unreachable:
                self._trouble()
                await asyncio.sleep(1.0)
                continue
            if answer.status in (401, 403, 429) or answer.status >= 500:
                await asyncio.sleep(answer.retry_after or 1.0)
                continue
            found = _FOUND.decode(answer.body) if answer.ok else None
            ours = found is not None and found.metadata.labels.get(RUN_LABEL) == run
            return found.metadata.creation_timestamp.timestamp() if found is not None and ours else None

    def _accepted(self, entry: Entry, resource: str, now: float) -> bool:
        entry.accepted, entry.failed = now, 0
        self._requests.add(resource, "create", "accepted", now - (entry.intended or now))
        self._ledger.save(entry)
        return True

    def _found(self, entry: Entry, resource: str, created: float | None) -> bool:
        """There already. `created` is the object's own clock (whole seconds): the answer's moment was not seen."""
        if created is None:
            return self._accepted(entry, resource, time.time())
        if entry.intended is None or entry.sent is None or created < entry.sent - 1.0:
            entry.intended = entry.sent = created
        entry.accepted, entry.failed = max(created, entry.sent), 0
        self._ledger.save(entry)
        return True

    def _failed(self, entry: Entry, resource: str, error: ApiError) -> bool:
        entry.failed = 1
        self.refusal = f"{entry.kind} {entry.namespace}/{entry.name}: {error}"
        self._requests.add(resource, "create", "failed")
        self._ledger.save(entry)
        return False
