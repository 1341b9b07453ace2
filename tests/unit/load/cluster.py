"""A control plane in memory: it stores what it is sent, and its controllers answer a moment later."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec

from turbokube.api.transport import Response
from turbokube.bundle.ledger import Action, Ledger
from turbokube.bundle.reader import Reader
from turbokube.bundle.writer import Writer
from turbokube.load.kinds import KINDS
from turbokube.load.pacing import Gate
from turbokube.load.work import Context, Outcome, carry_out
from turbokube.profile.phases import Create, ObjectSet, Phase

_GIVEN = (("serviceaccounts", "default"), ("configmaps", "kube-root-ca.crt"))
CREATE = Create(run="r", name="create", namespaces=2, objects=(ObjectSet(name="web", count=3, replicas=2),))


class Cluster:
    """A transport and a witness. `fault` may answer a request instead; `held` are objects with a finalizer."""

    def __init__(self, delay: float = 0.002) -> None:
        self.delay = delay
        self.objects: dict[str, dict[str, Any]] = {}  # by path
        self.requests: list[tuple[str, str, Any]] = []  # method, path, body
        self.running: defaultdict[tuple[str, str], int] = defaultdict(int)
        self.held: set[str] = set()
        self.watched: list[str] = []  # paths of watches
        self.fault: Callable[[str, str], Response | None] = lambda method, path: None
        self.scraped: list[tuple[str, ...]] = []
        self.node_counts = (8, 8)
        self.connections: list[Connection] = []
        self._log: list[tuple[str, str, dict[str, Any]]] = []  # type, path, object
        self._news = asyncio.Event()

    # a transport

    async def request(self, method: str, path: str, body: bytes = b"", *_: Any, **__: Any) -> Response:
        await asyncio.sleep(0)
        url = urlsplit(path)
        content = msgspec.json.decode(body) if body else None
        self.requests.append((method, path, content))
        if (answer := self.fault(method, path)) is not None:
            return answer
        if method == "GET":
            return self._get(url.path, {name: value[0] for name, value in parse_qs(url.query).items()})
        if method == "POST":
            return self._post(url.path, content)
        where = url.path.removesuffix("/scale")
        if where not in self.objects:
            return Response(404, b"{}")
        return self._delete(where) if method == "DELETE" else self._patch(where, content)

    async def stream(self, path: str, accept: str = "") -> AsyncIterator[bytes]:
        url = urlsplit(path)
        self.watched.append(url.path)
        at = int(parse_qs(url.query)["resourceVersion"][0])
        while True:
            while at < len(self._log):
                kind, where, made = self._log[at]
                at += 1
                if _collection(where, url.path):
                    shown = {**made, "metadata": {"resourceVersion": str(at), **made["metadata"]}}
                    yield msgspec.json.encode({"type": kind, "object": shown})
            self._news.clear()
            await self._news.wait()

    async def close(self) -> None: ...

    # a connection for watches

    def connect(self, number: int) -> Connection:
        self.connections.append(Connection(self))
        return self.connections[-1]

    def _get(self, path: str, query: dict[str, str]) -> Response:
        if path in self.objects:
            return Response(200, msgspec.json.encode(self.objects[path]))
        if path.rpartition("/")[2].endswith(tuple("0123456789")):
            return Response(404, b"{}")
        items = [made for where, made in self.objects.items() if _collection(where, path)]
        begin, limit = int(query.get("continue", 0)), int(query.get("limit", 0)) or len(items)
        more = {"continue": str(begin + limit)} if begin + limit < len(items) else {}
        metadata = {"resourceVersion": str(len(self._log)), **more}
        return Response(200, msgspec.json.encode({"metadata": metadata, "items": items[begin : begin + limit]}))

    def _post(self, path: str, made: dict[str, Any]) -> Response:
        where = f"{path}/{made['metadata']['name']}"
        if where in self.objects:
            return Response(409, b'{"reason": "AlreadyExists"}')
        within = path.split("/namespaces/")[1].split("/")[0] if "/namespaces/" in path else ""
        if within and f"/api/v1/namespaces/{within}" not in self.objects:
            return Response(404, b'{"reason": "NotFound"}')
        metadata = made["metadata"]
        metadata |= {"generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z"}
        if within:
            metadata["namespace"] = within
        self._put("ADDED", where, made)
        if path == "/api/v1/namespaces":
            for plural, name in _GIVEN:
                given = {"metadata": {"name": name, "namespace": metadata["name"], "labels": {}}}
                self._later(self._put, "ADDED", f"{where}/{plural}/{name}", given)
        self._later(self._control, where)
        return Response(201, msgspec.json.encode(made))

    def _patch(self, where: str, patch: dict[str, Any]) -> Response:
        made = _merged(self.objects[where], patch)
        made["metadata"]["generation"] += "spec" in patch
        self._put("MODIFIED", where, made)
        self._later(self._control, where)
        return Response(200, msgspec.json.encode(made))

    def _delete(self, where: str) -> Response:
        self.objects[where]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        self._put("MODIFIED", where, self.objects[where])
        self._later(self.collect, where)
        return Response(200, b"{}")

    # controllers

    def _later(self, work: Callable[..., None], *arguments: Any) -> None:
        asyncio.get_running_loop().call_later(self.delay, work, *arguments)

    def _control(self, where: str) -> None:
        """What a controller makes of an object, at one stroke: all pods run."""
        made = self.objects.get(where)
        if made is None or "deployments" not in where:
            return
        count, metadata = made["spec"]["replicas"], made["metadata"]
        self.running[metadata["namespace"], metadata["name"]] = count
        counts = dict.fromkeys(("replicas", "updatedReplicas", "availableReplicas"), count)
        self._put("MODIFIED", where, {**made, "status": {"observedGeneration": metadata["generation"], **counts}})

    def collect(self, where: str) -> None:
        """The end of what is being deleted, and of what is in it."""
        if where in self.held or where not in self.objects:
            return
        for inner in [each for each in self.objects if each.startswith(f"{where}/") or f"{where[7:]}/" in each]:
            self._end(inner)
        self._end(where)

    def _end(self, where: str) -> None:
        made = self.objects.pop(where)
        self.running.pop((made["metadata"].get("namespace", ""), made["metadata"]["name"]), None)
        self._log.append(("DELETED", where, made))
        self._news.set()

    def _put(self, kind: str, where: str, made: dict[str, Any]) -> None:
        self.objects[where] = made
        self._log.append((kind, where, msgspec.json.decode(msgspec.json.encode(made))))
        self._news.set()

    # a witness

    async def pods_run(self, namespace: str, owner: str, replicas: int) -> float:
        return await self._until(lambda: self.running[namespace, owner] >= replicas)

    async def pods_settle(self, namespace: str, owner: str, replicas: int) -> float:
        return await self._until(lambda: self.running[namespace, owner] == replicas)

    async def _until(self, holds: Callable[[], bool]) -> float:
        while not holds():
            await asyncio.sleep(0.001)
        return time.time()

    def pods(self, namespaces: list[str]) -> tuple[int, int]:
        count = sum(running for (namespace, _), running in self.running.items() if namespace in namespaces)
        return count, count

    def nodes(self) -> tuple[int, int]:
        return self.node_counts

    async def scrape(self, components: tuple[str, ...]) -> None:
        self.scraped.append(components)

    def nudge(self) -> None: ...

    # what a test asks

    def sent(self, *methods: str) -> list[str]:
        """Paths of the requests of these methods, in their order."""
        return [path for method, path, _ in self.requests if method in methods]


class Connection:
    """Watches as api.http2.Http2 has them. A test may refuse the next ones, or end those that are open."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.paths: list[str] = []
        self.streams: dict[asyncio.Task[None], Any] = {}
        self.refusals: list[tuple[int, bytes]] = []
        self.closed = False

    def open(self, path: str, accept: str, listener: Any) -> asyncio.Task[None]:
        self.paths.append(path)
        task = asyncio.get_running_loop().create_task(self._feed(path, listener))
        self.streams[task] = listener
        return task

    async def _feed(self, path: str, listener: Any) -> None:
        if self.refusals:
            status, body = self.refusals.pop(0)
            listener.head(status, 0.0)
            listener.data(body)
            listener.ended("")
            return
        listener.head(200, 0.0)
        async for line in self.cluster.stream(path):
            listener.data(line[:20])
            listener.data(line[20:] + b"\n")

    def end(self, why: str = "") -> None:
        """The server ends all watches of this connection, or they break."""
        for task, listener in list(self.streams.items()):
            self.cancel(task)
            listener.ended(why)

    def cancel(self, task: asyncio.Task[None]) -> None:
        task.cancel()
        self.streams.pop(task, None)

    async def close(self) -> None:
        self.closed = True


def _collection(where: str, path: str) -> bool:
    """Whether an object is in a collection, of one namespace or of all."""
    collection = where.rpartition("/")[0]
    if collection == path:
        return True
    before, _, rest = collection.partition("/namespaces/")
    return "/" in rest and f"{before}/{rest.partition('/')[2]}" == path


def _merged(made: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    result = dict(made) if isinstance(made, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merged(result.get(key), value)
    return result


class Run:
    """A run's folder; each phase is worked at by an agent of its own, so that all is in the ledger."""

    def __init__(self, folder: Path, cluster: Cluster) -> None:
        self.folder = folder
        self.cluster = cluster
        self._phases: dict[str, Phase] = {}
        self._started: dict[str, float] = {}
        self._died: dict[str, float] = {}
        self._away: defaultdict[str, float] = defaultdict(float)

    async def phase(
        self, phase: Phase, *, killed: Callable[[], bool] = lambda: False, gate: Gate | None = None
    ) -> Outcome:
        """Work at a phase until it ends, or until the agent is `killed`."""
        if phase.name in self._died:
            self._away[phase.name] += time.time() - self._died[phase.name]
        writer = Writer(self.folder)
        self._phases[phase.name] = phase
        context = Context(
            phase=phase,
            transport=self.cluster,
            writer=writer,
            ledger=Ledger(writer),
            gate=gate or Gate(),
            witness=self.cluster,  # type: ignore[arg-type]
            phases=self._phases.__getitem__,
            connect=self.cluster.connect,  # type: ignore[arg-type]
            started=self._started.setdefault(phase.name, time.time()),
            away_before=self._away[phase.name],
        )
        self.work = KINDS[phase.kind](context)
        task = asyncio.create_task(carry_out(self.work, context))
        while not task.done() and not killed():
            await asyncio.sleep(0.001)
        self._died[phase.name] = time.time()
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        outcome = Outcome("killed") if task.cancelled() else task.result()
        await asyncio.to_thread(writer.close)
        return outcome

    def actions(self, phase: str) -> list[Action]:
        """Rows of table actions, by number."""
        with Reader(self.folder) as reader:
            rows = reader.query("SELECT * FROM actions WHERE phase = ? ORDER BY number", phase)
        return [Action(*row) for row in rows]

    def query(self, sql: str) -> list[Any]:
        with Reader(self.folder) as reader:
            return [tuple(row) for row in reader.query(sql)]

    def sums(self, phase: str) -> dict[tuple[str, str], dict[str, int]]:
        """(resource, verb) → sums of table requests."""
        columns = ("intended", "sent", "accepted", "throttled", "retried", "failed")
        sql = f"SELECT resource, verb, {', '.join(f'sum({name})' for name in columns)} FROM requests WHERE phase = ?"
        with Reader(self.folder) as reader:
            rows = reader.query(f"{sql} GROUP BY resource, verb", phase)
        return {(row[0], row[1]): dict(zip(columns, row[2:], strict=True)) for row in rows}
