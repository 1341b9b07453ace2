"""The create phase against a server of canned answers: no network, the real ledger."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec

from turbokube.api.transport import Response, Unreachable
from turbokube.bundle.ledger import Ledger
from turbokube.bundle.reader import Reader
from turbokube.bundle.writer import Writer
from turbokube.load.create import CreateWork
from turbokube.load.pacing import Gate
from turbokube.load.work import Context, Outcome, carry_out
from turbokube.profile.phases import Create, ObjectSet


class Server:
    """Accepts what is posted, and has a namespace ready at once. `fault` may answer instead."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.posts: list[tuple[float, str]] = []
        self.fault: Callable[[str, str], Response | None] = lambda method, path: None
        self._news = asyncio.Event()

    async def request(self, method: str, path: str, body: bytes = b"", *_: Any, **__: Any) -> Response:
        await asyncio.sleep(0)
        if method == "GET":
            if path.split("?")[0].rpartition("/")[2] in ("serviceaccounts", "configmaps"):
                return Response(200, b'{"metadata": {"resourceVersion": "1"}, "items": []}')
            found = self.objects.get(path)
            return Response(200, msgspec.json.encode(found)) if found else Response(404, b"{}")
        made = msgspec.json.decode(body)
        where = f"{path}/{made['metadata']['name']}"
        self.posts.append((time.time(), where))
        if (answer := self.fault(method, where)) is not None:
            return answer
        if where in self.objects:
            return Response(409, b'{"reason": "AlreadyExists"}')
        self.add(where, made)
        return Response(201, b"{}")

    def add(self, where: str, made: dict[str, Any], created: str = "2026-01-01T00:00:00Z") -> None:
        made["metadata"]["creationTimestamp"] = created
        self.objects[where] = made
        self._news.set()

    async def stream(self, path: str) -> AsyncIterator[bytes]:
        told: set[str] = set()
        while True:
            for where in [where for where in self.objects if where.count("/") == 4 and where not in told]:
                told.add(where)
                metadata = {"namespace": where.rpartition("/")[2], "resourceVersion": "2"}
                yield msgspec.json.encode({"type": "ADDED", "object": {"metadata": metadata}})
            self._news.clear()
            await self._news.wait()

    async def close(self) -> None: ...


class Witness:
    """Sees every pod run at once."""

    async def pods_run(self, namespace: str, owner: str, replicas: int) -> float:
        return time.time()

    def nudge(self) -> None: ...


async def _run(folder: Path, server: Server, gate: Gate | None = None, deployments: int = 3, **changes: Any) -> Outcome:
    sets = (ObjectSet(name="turbokube", count=deployments, replicas=2),)
    phase = Create(**{"run": "r", "name": "create", "namespaces": 2, "objects": sets, **changes})
    writer = Writer(folder)
    context = Context(
        phase=phase,
        transport=server,
        writer=writer,
        ledger=Ledger(writer),
        gate=gate or Gate(),
        witness=Witness(),  # type: ignore[arg-type]
        phases=lambda name: phase,
        connect=lambda number: server,
        started=time.time(),
    )
    outcome = await carry_out(CreateWork(context), context)
    writer.close()
    return outcome


def objects(folder: Path) -> list[Any]:
    with Reader(folder) as reader:
        return reader.query("SELECT * FROM objects ORDER BY kind, namespace, name")


def sums(folder: Path) -> dict[str, int]:
    columns = ("sent", "accepted", "throttled", "retried", "failed")
    with Reader(folder) as reader:
        row = reader.query(f"SELECT {', '.join(f'sum({name})' for name in columns)} FROM requests")[0]
    return dict(zip(columns, row, strict=True))


def test_every_object_is_created_once_and_accounted_for(tmp_path: Path) -> None:
    async def scenario() -> Server:
        server = Server()
        assert await _run(tmp_path, server) == Outcome("done")
        return server

    server = asyncio.run(scenario())
    assert len(server.posts) == len({where for _, where in server.posts}) == 2 + 6
    rows = objects(tmp_path)
    assert len(rows) == 8
    assert all(row["intended"] <= row["sent"] <= row["accepted"] <= row["ready"] for row in rows)
    assert sums(tmp_path) == {"sent": 8, "accepted": 8, "throttled": 0, "retried": 0, "failed": 0}


def test_nothing_accepted_is_sent_again_and_nothing_is_left_out(tmp_path: Path) -> None:
    async def resumed() -> list[tuple[float, str]]:
        writer = Writer(tmp_path)
        ledger = Ledger(writer)
        server = Server()
        for index in range(2):
            entry = ledger.plan("create", "Namespace", f"turbokube-{index:04x}", f"turbokube-{index:04x}")
            entry.intended = entry.sent = entry.accepted = 5.0
            ledger.save(entry)
            server.add(f"/api/v1/namespaces/{entry.name}", {"metadata": {"labels": {"turbokube.io/run": "r"}}})
        done = ledger.plan("create", "Deployment", "turbokube-0000", "turbokube-00", 2)
        done.intended = done.sent = done.accepted = 6.0
        ledger.save(done)
        sent = ledger.plan("create", "Deployment", "turbokube-0000", "turbokube-01", 2)
        sent.intended, sent.sent = 7.0, 7.5  # and the server has it, as of 8.0
        ledger.save(sent)
        path = "/apis/apps/v1/namespaces/turbokube-0000/deployments/turbokube-01"
        server.add(path, {"metadata": {"labels": {"turbokube.io/run": "r"}}}, "1970-01-01T00:00:08Z")
        writer.close()
        assert await _run(tmp_path, server) == Outcome("done")
        return server.posts

    posts = [where.rpartition("namespaces/")[2] for _, where in asyncio.run(resumed())]
    assert sorted(posts) == [
        "turbokube-0000/deployments/turbokube-01",
        "turbokube-0000/deployments/turbokube-02",
        *(f"turbokube-0001/deployments/turbokube-0{i}" for i in range(3)),
    ]
    rows = {(row["namespace"], row["name"]): row for row in objects(tmp_path)}
    assert rows["turbokube-0000", "turbokube-00"]["accepted"] == 6.0
    found = rows["turbokube-0000", "turbokube-01"]
    assert (found["intended"], found["sent"], found["accepted"]) == (7.0, 7.5, 8.0)


def test_throttling_retries_and_lost_answers_are_told_apart(tmp_path: Path) -> None:
    async def scenario() -> Server:
        server = Server()
        faults = {
            "turbokube-00": [Response(429, b"{}", 0.01)],
            "turbokube-01": [Response(503, b"{}")],
            "turbokube-02": [Unreachable("reset", sent=True)],
        }

        def fault(method: str, where: str) -> Response | None:
            left = faults.get(where.rpartition("/")[2]) if "deployments" in where else None
            if not left:
                return None
            answer = left.pop()
            if isinstance(answer, Unreachable):
                server.add(where, {"metadata": {"labels": {"turbokube.io/run": "r"}}})  # it did arrive
                raise answer
            return answer

        server.fault = fault
        assert await _run(tmp_path, server, namespaces=1) == Outcome("done")
        return server

    asyncio.run(scenario())
    rows = {row["name"]: row for row in objects(tmp_path) if row["kind"] == "Deployment"}
    assert [(r["throttled"], r["retries"], r["failed"]) for _, r in sorted(rows.items())] == [
        (1, 0, 0),
        (0, 1, 0),
        (0, 1, 0),
    ]
    assert all(row["accepted"] >= row["sent"] for row in rows.values())
    assert sums(tmp_path) == {"sent": 7, "accepted": 4, "throttled": 1, "retried": 2, "failed": 0}


def test_a_server_that_has_not_read_its_rbac_yet_is_waited_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        server = Server()
        refusals = [Response(403, b"{}"), Response(401, b"{}")]
        server.fault = lambda method, where: refusals.pop() if refusals else None
        assert await _run(tmp_path, server) == Outcome("done")

    asyncio.run(scenario())
    assert sums(tmp_path) == {"sent": 10, "accepted": 8, "throttled": 0, "retried": 2, "failed": 0}


def test_what_is_refused_or_not_ours_is_failed_and_named(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("turbokube.load.send.FORGIVEN_S", 0.3)

    async def scenario() -> Outcome:
        server = Server()
        theirs = "/apis/apps/v1/namespaces/turbokube-0000/deployments/turbokube-01"
        server.objects[theirs] = {"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"}}

        def fault(method: str, where: str) -> Response | None:
            refusal = b'{"reason": "Forbidden", "message": "no"}'
            return Response(403, refusal) if where.endswith("deployments/turbokube-00") else None

        server.fault = fault
        return await _run(tmp_path, server, namespaces=1)

    outcome = asyncio.run(scenario())
    assert outcome.state == "stopped"
    assert outcome.note.startswith("2 objects were refused, the last: Deployment turbokube-0000/turbokube-0")
    assert [row["failed"] for row in objects(tmp_path) if row["kind"] == "Deployment"] == [1, 1, 0]


def test_at_the_deadline_it_says_what_is_missing(tmp_path: Path) -> None:
    async def scenario() -> Outcome:
        server = Server()
        server.fault = lambda method, where: Response(503, b"{}") if "deployments" in where else None
        return await _run(tmp_path, server, deadline=0.3)

    assert asyncio.run(scenario()) == Outcome("deadline", "after 0.3 s: 6 objects not accepted")


def test_a_shut_gate_holds_back_what_is_new(tmp_path: Path) -> None:
    async def scenario() -> tuple[int, float]:
        server, gate = Server(), Gate()
        gate.shut()
        work = asyncio.create_task(_run(tmp_path, server, gate, deadline=0.4))
        await asyncio.sleep(1.2)  # longer than the deadline, which does not count it
        held = len(server.posts)
        gate.reopen()
        assert await work == Outcome("done")
        return held, gate.away

    held, away = asyncio.run(scenario())
    assert held == 0
    assert 1.1 < away < 2.0
    rows = objects(tmp_path)
    assert len(rows) == 8
    assert all(row["accepted"] - row["intended"] < 0.5 for row in rows)  # latency is not of the pause


def test_open_loop_intends_by_its_schedule_whatever_the_answers(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("turbokube.load.create.LEAD_S", 0.2)

    async def scenario() -> None:
        server = Server()
        slow = Response(503, b"{}")
        first = [slow, slow, slow]
        server.fault = lambda method, where: (
            first.pop() if where.endswith("0000/deployments/turbokube-00") and first else None
        )
        assert await _run(tmp_path, server, rate=20.0, deployments=5) == Outcome("done")

    asyncio.run(scenario())
    rows = [row for row in objects(tmp_path) if row["kind"] == "Deployment"]
    start = rows[0]["intended"]
    assert [round((row["intended"] - start) * 20, 3) for row in rows] == list(range(10))
    assert all(row["sent"] >= row["intended"] for row in rows)
    assert rows[0]["accepted"] - rows[0]["intended"] > 0.2  # back-off counts: latency is from the intended time
    spaces = [row for row in objects(tmp_path) if row["kind"] == "Namespace"]
    assert all(space["accepted"] < row["intended"] for space, row in zip(spaces, rows[::5], strict=True))
