"""Sending a request until the API server has done it, or has refused it, and the account of every request."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import msgspec

from turbokube.api.transport import JSON, ApiError, Response, Transport, Unreachable
from turbokube.bundle.ledger import Action, Entry, Ledger
from turbokube.bundle.reader import Reader
from turbokube.bundle.writer import Writer

from .pacing import Gate
from .phase import RUN_LABEL

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0  # back-off of retries, as client-go's reflectors do within an order

# An API server that has just started refuses everybody until it has read its RBAC objects, and one that has just got a
# CustomResourceDefinition knows nothing of its kind: no refusal before so long
FORGIVEN_S = 10.0
_BUCKET = math.log(1.05)  # latencies are counted in buckets that are 5 % apart
_LEAST_S = 1e-4  # below it they are all one


class _Metadata(msgspec.Struct, rename="camel"):
    creation_timestamp: datetime
    labels: dict[str, str] = {}


class _Found(msgspec.Struct):
    metadata: _Metadata


_FOUND = msgspec.json.Decoder(_Found)


class Account(Protocol):
    """What is noted of one intended request and all its sendings: an Entry, an Action, or a Reading."""

    intended: float | None
    sent: float | None
    accepted: float | None
    status: int | None
    retries: int
    throttled: int
    failed: int


@dataclass(slots=True)
class Reading:
    """The account of a request that changes nothing: kept in sums only."""

    intended: float | None = None
    sent: float | None = None
    accepted: float | None = None
    status: int | None = None
    retries: int = 0
    throttled: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be sent. `verb` is Kubernetes' and names it in tables, as `resource` does (its plural)."""

    verb: str
    resource: str
    method: str
    path: str
    body: bytes = b""
    content_type: str = JSON
    accept: str = JSON
    timeout: float = 30.0


class Requests:
    """Sums of the generator's requests by second, resource and verb, and their latencies from the intended time.

    What comes to a second after it was written is one more row of it: rows and latencies are of the same requests,
    also when the agent is killed between two writings.
    """

    def __init__(self, writer: Writer, phase: str) -> None:
        self._writer = writer
        self._phase = phase
        self._sums: dict[tuple[int, str, str], list[float]] = {}
        self._changed: set[tuple[str, str, int]] = set()
        with Reader(writer.path.parent) as reader:
            rows = reader.query("SELECT resource, verb, le, count FROM latencies WHERE phase = ?", phase)
            self._latencies = {(row[0], row[1], round(math.log(row[2]) / _BUCKET)): int(row[3]) for row in rows}

    def meant(self, resource: str, verb: str, intended: float) -> None:
        """Count one that was intended for that moment."""
        self._row(int(intended), resource, verb)[7] += 1

    def add(self, resource: str, verb: str, what: str, latency: float = 0.0) -> None:
        """Count one of sent, accepted, throttled, retried, failed; `latency` (seconds, from intended) if accepted."""
        row = self._row(int(time.time()), resource, verb)
        row[_COLUMNS[what]] += 1
        if what == "accepted":
            row[5] += latency
            row[6] = max(row[6], latency)
            bucket = (resource, verb, math.ceil(math.log(max(latency, _LEAST_S)) / _BUCKET))
            self._latencies[bucket] = self._latencies.get(bucket, 0) + 1
            self._changed.add(bucket)

    def _row(self, second: int, resource: str, verb: str) -> list[float]:
        key = (second, resource, verb)
        row = self._sums.get(key)
        if row is None:
            row = self._sums[key] = [0, 0, 0, 0, 0, 0.0, 0.0, 0]
        return row

    def write(self) -> None:
        """Hand over all sums and latencies so far."""
        sums, self._sums = self._sums, {}
        if sums:
            self._writer.insert("requests", [(self._phase, *key, *row) for key, row in sums.items()])
        changed, self._changed = self._changed, set()
        if changed:
            rows = [
                (self._phase, resource, verb, math.exp(number * _BUCKET), self._latencies[resource, verb, number])
                for resource, verb, number in changed
            ]
            self._writer.insert("latencies", rows)


_COLUMNS = {"sent": 0, "accepted": 1, "throttled": 2, "retried": 3, "failed": 4}


class Sender:
    """Sends with the load's own identity. `trouble` is told when no server answers.

    `lag` is the worst delay (seconds) between an intended moment and the work's beginning since it was last read.
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
        self.failures = 0
        self.refusal = ""  # the last refusal's words

    def meant(self, account: Account, resource: str, verb: str, intended: float) -> None:
        """Note when a request is intended; what was noted before stays."""
        if account.intended is None:
            account.intended = intended
            self._requests.meant(resource, verb, intended)
            self.begun(intended)

    def begun(self, intended: float) -> None:
        """What was meant for then is begun now. Whatever it waits for from now on is not the generator's doing."""
        self.lag = max(self.lag, time.time() - intended)

    async def create(self, entry: Entry, resource: str, path: str, body: bytes, run: str) -> bool:
        """Whether the API server has the object. Tries for ever where trying again can help."""
        before = entry.sent is not None  # an earlier agent sent it and died before the answer was kept
        request = Request("create", resource, "POST", path, body)
        answer, unanswered = await self._ask(entry, request, lambda: self._ledger.save(entry))
        if answer.ok:
            entry.failed = 0
        elif answer.status == 409 and (created := await self._look_up(f"{path}/{entry.name}", run)):
            # ours: either our own lost answer, or sent by an agent that is no more
            self._found(entry, resource, None if unanswered and not before else created)
        else:
            self._failed(entry, request, answer.error(), f"{entry.kind} {entry.namespace}/{entry.name}")
        self._ledger.save(entry)
        return not entry.failed

    async def act(self, action: Action, request: Request, run: str) -> Response | None:
        """The answer when the API server has done what an action asks for, None when it refused.

        Tries for ever where trying again can help.
        """
        answer, _ = await self._ask(action, request, lambda: self._ledger.keep(action))
        gone = action.verb == "delete" and answer.status in (404, 409)  # 409: a namespace that is on its way
        there = (
            action.verb == "create"
            and answer.status == 409
            and await self._look_up(f"{request.path}/{action.name}", run) is not None
        )
        if gone or there:
            self._accepted(action, request, time.time())
        elif not answer.ok:
            self._failed(action, request, answer.error(), f"{action.kind} {action.namespace}/{action.name}")
        self._ledger.keep(action)
        return None if action.failed else answer

    async def read(self, request: Request, intended: float) -> Response:
        """The answer to a read. That what is asked for is not there (404), or not any more (410), is an answer.

        Raises ApiError if it is refused.
        """
        reading = Reading()
        self.meant(reading, request.resource, request.verb, intended)
        answer, _ = await self._ask(reading, request)
        if answer.status == 410:  # a list that went on for too long is begun again
            self._requests.add(request.resource, request.verb, "retried")
        elif answer.status == 404 and request.verb == "get":
            self._accepted(reading, request, time.time())
        elif not answer.ok:
            self._failed(reading, request, answer.error(), f"{request.verb} of {request.resource}")
            raise answer.error()
        return answer

    async def _ask(
        self, account: Account, request: Request, keep: Callable[[], None] | None = None
    ) -> tuple[Response, bool]:
        """The answer that counts, which is taken in if it is good, and whether one may have been lost before it."""
        resource, verb = request.resource, request.verb
        unanswered, pause, refused_since = False, _FIRST_PAUSE_S, 0.0
        while True:
            await self._gate.passed()
            now = time.time()
            self.meant(account, resource, verb, now)
            if account.sent is None:
                account.sent = now
                if keep is not None:
                    keep()
            self._requests.add(resource, verb, "sent")
            try:
                answer = await self._transport.request(
                    request.method, request.path, request.body, request.content_type, request.timeout, request.accept
                )
            except Unreachable as error:
                unanswered = unanswered or error.sent
                self._trouble()
                pause = await self._again(account, request, pause)
                continue
            account.status = answer.status
            if answer.ok:
                self._accepted(account, request, time.time())
                return answer, unanswered
            if answer.status == 429:
                account.throttled += 1
                self._requests.add(resource, verb, "throttled")
                await asyncio.sleep(answer.retry_after or 1.0)
            elif answer.status >= 500 or (answer.status == 409 and request.method == "PATCH"):
                pause = await self._again(account, request, pause, answer.retry_after)
            elif _too_early(answer.status, verb) and now - (refused_since or now) < FORGIVEN_S:
                refused_since = refused_since or now
                pause = await self._again(account, request, pause)
            else:
                return answer, unanswered

    async def _again(self, account: Account, request: Request, pause: float, at_least: float = 0.0) -> float:
        account.retries += 1
        self._requests.add(request.resource, request.verb, "retried")
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

    def _accepted(self, account: Account, request: Request, now: float) -> None:
        account.accepted, account.failed = now, 0
        self._requests.add(request.resource, request.verb, "accepted", now - (account.intended or now))

    def _found(self, entry: Entry, resource: str, created: float | None) -> None:
        """There already. `created` is the object's own clock (whole seconds): the answer's moment was not seen."""
        entry.failed = 0
        if created is None:
            entry.accepted = time.time()
            self._requests.add(resource, "create", "accepted", entry.accepted - (entry.intended or entry.accepted))
            return
        if entry.intended is None or entry.sent is None or created < entry.sent - 1.0:
            entry.intended = entry.sent = created
        entry.accepted = max(created, entry.sent)

    def _failed(self, account: Account, request: Request, error: ApiError, what: str) -> None:
        account.failed = 1
        self.failures += 1
        self.refusal = f"{what}: {error}"
        self._requests.add(request.resource, request.verb, "failed")


def _too_early(status: int, verb: str) -> bool:
    return status in (401, 403) or (status == 404 and verb == "create")
