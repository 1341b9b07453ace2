"""Phase `read`: objects got, collections listed, watches held, for a time. Answers are counted and thrown away."""

from __future__ import annotations

import itertools
import random
import re
import time
from collections.abc import Iterator
from urllib.parse import urlencode

import msgspec

from turbokube.api import protobuf
from turbokube.api.transport import JSON, PROTOBUF, ApiError
from turbokube.profile.phases import Read

from .hold import Holding
from .pacing import Schedule, closed_loop, open_loop, pace
from .phase import LoadError
from .resources import Resource, named
from .send import Request
from .work import Context, first_words

_NAMES_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_MOST_NAMES = 10_000  # as many objects are got in turn
_LIST_TIMEOUT_S = 60.0  # an API server ends a list after as long (--request-timeout)
_METADATA = re.compile(rb'"metadata":(\{[^{}]*\})')  # of a list: flat


class ListMeta(msgspec.Struct, rename="camel"):
    """What a list says of itself."""

    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class _List(msgspec.Struct):
    metadata: ListMeta


class _Metadata(msgspec.Struct):
    name: str
    namespace: str = ""


class _Item(msgspec.Struct):
    metadata: _Metadata


class _Names(msgspec.Struct):
    items: list[_Item] | None = None


class ReadWork:
    """One phase of kind read at work."""

    def __init__(self, context: Context) -> None:
        assert isinstance(context.phase, Read)
        self.phase = context.phase
        self._context = context
        self._spaces = [self.phase.namespace(index) for index in self.phase.indices] if self.phase.namespaced else [""]
        random.Random(f"{self.phase.seed}/{self.phase.name}").shuffle(self._spaces)
        self._objects: list[str] = []  # paths, of verb get
        self._holding: Holding | None = None
        self._begun = self._answers = 0
        self._until = self.phase.duration  # in time that the phase is at work

    async def run(self) -> None:
        """Read until the time is over. Raises LoadError when the API server refuses."""
        phase, context = self.phase, self._context
        resource = await named(context.transport, phase.resource)
        if phase.namespaced and not resource.namespaced:
            raise LoadError(f"phase {phase.name} reads {phase.resource} by namespace, and they are in none")
        self._resource = resource
        try:
            if phase.verb == "get":
                self._objects = await self._paths(resource)
            if not context.away_before:  # what came before the first request does not count
                self._until += context.elapsed()
            if phase.verb == "watch":
                self._holding = Holding(context, resource.plural, self._spaces, self._list, self._path_to_watch)
                await self._holding.run(self._until)
            else:
                await self._until_over()
        except (ApiError, ExceptionGroup) as error:
            raise LoadError(f"reads of {phase.resource} were refused: {first_words(error)}") from None

    def words(self) -> str:
        """How much was answered, and for how long still."""
        left = f"{max(0.0, self._until - self._context.elapsed()):.0f} s left"
        return f"{self._holding.words()}, {left}" if self._holding else f"{self._answers} answers, {left}"

    def missing(self) -> str:
        """The answers to the last requests, and the rest of its time."""
        return f"{self._begun - self._answers} reads without an answer, {self.words()}"

    async def _until_over(self) -> None:
        context, phase, until = self._context, self.phase, self._until
        numbers: Iterator[int] = itertools.count()
        if not phase.rate:
            numbers = itertools.takewhile(lambda _: context.elapsed() < until, numbers)
            await closed_loop(numbers, self._one, phase.concurrency, context.gate)
            return
        speed, begun = pace(phase.rate, phase.seed), context.elapsed() if context.away_before else 0.0
        numbers = itertools.takewhile(lambda number: speed.offset(number) < phase.duration, numbers)
        numbers = itertools.dropwhile(lambda number: speed.offset(number) < begun, numbers)
        if (first := next(numbers, None)) is not None:
            start = time.time() + max(0.0, speed.offset(first) - begun)
            await open_loop(itertools.chain((first,), numbers), self._one, Schedule(speed, start, context.gate, first))

    async def _one(self, number: int, intended: float) -> None:
        self._begun += 1
        if self._objects:
            path = self._objects[number % len(self._objects)]
            await self._context.sender.read(self._request("get", path, 30.0), intended)
        else:
            await self._list(self._spaces[number % len(self._spaces)], intended)
        self._answers += 1

    # get

    async def _paths(self, resource: Resource) -> list[str]:
        """Paths of objects that there are, in the seed's order."""
        spaces, found = set(self._spaces), []
        token = ""
        while True:
            query = urlencode(self._query(limit=500, token=token, version=""))
            answer = await self._context.transport.request(
                "GET", f"{resource.collection()}?{query}", timeout=_LIST_TIMEOUT_S, accept=_NAMES_ONLY
            )
            body = answer.checked().body
            for item in msgspec.json.decode(body, type=_Names).items or []:
                if not self.phase.namespaced or item.metadata.namespace in spaces:
                    found.append(f"{resource.collection(item.metadata.namespace)}/{item.metadata.name}")
            token = list_meta(body).continue_
            if not token or len(found) >= _MOST_NAMES:
                break
        if not found:
            raise LoadError(f"phase {self.phase.name} gets {self.phase.resource}, and there are none")
        random.Random(f"{self.phase.seed}/{self.phase.name}/objects").shuffle(found)
        suffix = f"?resourceVersion={self.phase.resource_version}" if self.phase.resource_version else ""
        return [f"{path}{suffix}" for path in found]

    # list

    async def _list(self, namespace: str, intended: float) -> str:
        """One list, with all its pages; each page after the first is meant for when the one before it was there.

        Gives its resourceVersion.
        """
        token = ""
        while True:
            query = self._query(limit=self.phase.limit, token=token, version=self.phase.resource_version)
            answer = await self._context.sender.read(self._request("list", self._path(namespace, query)), intended)
            intended = time.time()
            if answer.status == 410:
                token = ""
                continue
            meta = list_meta(answer.body)
            if not (token := meta.continue_):
                return meta.resource_version

    def _path_to_watch(self, namespace: str, version: str) -> str:
        query = {**self._query(version=version), "watch": "1", "allowWatchBookmarks": "true"}
        query["timeoutSeconds"] = str(random.randint(300, 600))  # as client-go's reflectors ask
        return self._path(namespace, query)

    def _query(self, *, limit: int = 0, token: str = "", version: str = "") -> dict[str, str]:
        query = {"limit": str(limit) if limit else "", "labelSelector": self.phase.selector}
        query |= {"continue": token} if token else {"resourceVersion": version}  # a page has its list's version
        return {name: value for name, value in query.items() if value}

    def _path(self, namespace: str, query: dict[str, str]) -> str:
        collection = self._resource.collection(namespace)
        return f"{collection}?{urlencode(query)}" if query else collection

    def _request(self, verb: str, path: str, timeout: float = _LIST_TIMEOUT_S) -> Request:
        accept = f"{PROTOBUF},{JSON}" if self.phase.protobuf else JSON  # custom resources have no protobuf
        return Request(verb, self._resource.plural, "GET", path, accept=accept, timeout=timeout)


def list_meta(body: bytes) -> ListMeta:
    """What a list says of itself, without decoding its items."""
    if body.startswith(protobuf.MAGIC):
        meta = protobuf.find(protobuf.unwrap(body), 1)
        return ListMeta(protobuf.find(meta, 2).decode(), protobuf.find(meta, 3).decode())
    if found := _METADATA.search(body, 0, body.find(b'"items"')):
        return msgspec.json.decode(found[1], type=ListMeta)
    return msgspec.json.decode(body, type=_List).metadata  # lists of custom resources have it behind their items
