"""Reads of a control plane in memory: what is asked, how often, and what is counted of it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.unit.load.cluster import CREATE, Cluster, Run
from turbokube.api.protobuf import field, wrap
from turbokube.api.transport import Response
from turbokube.load import hold
from turbokube.load.read import list_meta
from turbokube.load.work import Outcome
from turbokube.profile.phases import Read

DONE = Outcome("done")
DEPLOYMENTS = "/apis/apps/v1/deployments"


def read(**given: Any) -> Read:
    return Read(**{"run": "r", "name": "read", "namespaces": 2, "resource": "deployments", "duration": 0.2, **given})


def scenario(folder: Path, then: Callable[[Run, Cluster], Awaitable[None]]) -> None:
    async def whole() -> None:
        cluster = Cluster()
        run = Run(folder, cluster)
        assert await run.phase(CREATE) == DONE
        cluster.requests.clear()
        await then(run, cluster)

    asyncio.run(whole())


def queries(cluster: Cluster, path: str) -> list[dict[str, str]]:
    found = [urlsplit(each) for each in cluster.sent("GET") if urlsplit(each).path == path]
    return [{name: value[0] for name, value in parse_qs(each.query).items()} for each in found]


def test_lists_are_as_many_as_the_rate_says(tmp_path: Path) -> None:
    async def then(run: Run, cluster: Cluster) -> None:
        assert await run.phase(read(rate=100.0, resource_version="0", selector="a=b")) == DONE
        assert queries(cluster, DEPLOYMENTS) == [{"resourceVersion": "0", "labelSelector": "a=b"}] * 20
        sums = run.sums("read")["deployments", "list"]
        assert sums == {"intended": 20, "sent": 20, "accepted": 20, "throttled": 0, "retried": 0, "failed": 0}
        assert run.query("SELECT sum(count) FROM latencies WHERE phase = 'read'") == [(20,)]

    scenario(tmp_path, then)


def test_pages_are_requests_of_their_own(tmp_path: Path) -> None:
    async def then(run: Run, cluster: Cluster) -> None:
        assert await run.phase(read(rate=10.0, limit=4)) == DONE
        assert queries(cluster, DEPLOYMENTS) == [{"limit": "4"}, {"limit": "4", "continue": "4"}] * 2
        assert run.sums("read")["deployments", "list"]["intended"] == 4

    scenario(tmp_path, then)


def test_a_list_that_took_too_long_is_begun_again(tmp_path: Path) -> None:
    async def then(run: Run, cluster: Cluster) -> None:
        expired = [Response(410, b'{"reason": "Expired"}')]
        cluster.fault = lambda method, path: expired.pop() if "continue=" in path and expired else None
        assert await run.phase(read(rate=5.0, limit=4)) == DONE
        limit = {"limit": "4"}
        assert queries(cluster, DEPLOYMENTS) == [limit, limit | {"continue": "4"}, limit, limit | {"continue": "4"}]
        sums = run.sums("read")["deployments", "list"]
        assert (sums["sent"], sums["accepted"], sums["retried"], sums["failed"]) == (4, 3, 1, 0)

    scenario(tmp_path, then)


def test_namespaces_are_read_in_turn(tmp_path: Path) -> None:
    async def then(run: Run, cluster: Cluster) -> None:
        assert await run.phase(read(rate=100.0, namespaced=True)) == DONE
        of_each = "/apis/apps/v1/namespaces/turbokube-{:04x}/deployments"
        assert Counter(cluster.sent("GET")) == {of_each.format(0): 10, of_each.format(1): 10}

    scenario(tmp_path, then)


def test_objects_are_got_in_turn_and_one_that_is_gone_is_an_answer(tmp_path: Path) -> None:
    async def then(run: Run, cluster: Cluster) -> None:
        gone = "/apis/apps/v1/namespaces/turbokube-0001/deployments/web-02"
        cluster.fault = lambda method, path: Response(404, b"{}") if path == gone else None
        assert await run.phase(read(verb="get", rate=60.0)) == DONE
        got = Counter(path for path in cluster.sent("GET") if path.count("/") == 7)
        assert set(got.values()) == {2}
        assert len(got) == 6
        assert run.sums("read")["deployments", "get"]["accepted"] == 12

    scenario(tmp_path, then)


def test_a_closed_loop_reads_until_its_time_is_over(tmp_path: Path) -> None:
    async def then(run: Run, cluster: Cluster) -> None:
        begun = time.time()
        assert await run.phase(read(concurrency=3)) == DONE
        assert 0.2 <= time.time() - begun < 1.5
        sums = run.sums("read")["deployments", "list"]
        assert sums["intended"] == sums["accepted"] > 20

    scenario(tmp_path, then)


def test_a_schedule_goes_on_where_the_agent_died(tmp_path: Path) -> None:
    async def then(run: Run, cluster: Cluster) -> None:
        phase = read(rate=50.0, duration=0.8)
        await run.phase(phase, killed=lambda: len(cluster.requests) > 9)
        before = len(cluster.requests)
        await asyncio.sleep(0.4)
        assert await run.phase(phase) == DONE
        assert before < 20
        assert 20 < len(cluster.requests) <= 41  # neither made up for what was missed, nor begun again

    scenario(tmp_path, then)


@pytest.mark.parametrize(
    ("given", "note"),
    [
        ({"resource": "geese.example.com"}, "the API server serves no resource geese.example.com"),
        ({"resource": "secrets", "verb": "get"}, "phase read gets secrets, and there are none"),
        ({"resource": "nodes", "namespaced": True}, "phase read reads nodes by namespace, and they are in none"),
    ],
)
def test_what_cannot_be_read_stops_the_phase(tmp_path: Path, given: dict[str, Any], note: str) -> None:
    async def then(run: Run, cluster: Cluster) -> None:
        cluster.fault = lambda method, path: Response(404, b"{}") if "example.com" in path else None
        outcome = await run.phase(read(**given))
        assert outcome.state == "stopped"
        assert outcome.note.startswith(note)

    scenario(tmp_path, then)


def test_refused_reads_stop_the_phase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("turbokube.load.send.FORGIVEN_S", 0.1)

    async def then(run: Run, cluster: Cluster) -> None:
        cluster.fault = lambda method, path: Response(403, b'{"reason": "Forbidden", "message": "no"}')
        assert await run.phase(read(duration=5.0)) == Outcome(
            "stopped", "reads of deployments were refused: 403 Forbidden: no"
        )

    scenario(tmp_path, then)


def test_answers_that_do_not_come_are_waited_for_until_the_deadline(tmp_path: Path) -> None:
    async def then(run: Run, cluster: Cluster) -> None:
        cluster.fault = lambda method, path: Response(503, b"{}")
        outcome = await run.phase(read(rate=50.0, duration=0.1, deadline=0.3))
        assert outcome.state == "deadline"
        assert outcome.note == "after 0.3 s: 5 reads without an answer, 0 answers, 0 s left"
        assert run.sums("read")["deployments", "list"]["intended"] == 5

    scenario(tmp_path, then)


def test_a_list_tells_of_itself_wherever_it_does_so() -> None:
    wanted = ("7", "abc")
    before = (
        b'{"kind":"PodList","metadata":{"resourceVersion":"7","continue":"abc"},"items":[{"metadata":{"name":"x"}}]}'
    )
    behind = (
        b'{"apiVersion":"x/v1","items":[{"metadata":{"name":"x"}}],"metadata":{"continue":"abc","resourceVersion":"7"}}'
    )
    binary = wrap("v1", "PodList", field(1, field(2, b"7") + field(3, b"abc")) + field(2, b"pod"))
    for body in (before, behind, binary):
        meta = list_meta(body)
        assert (meta.resource_version, meta.continue_) == wanted


# watches


def watches(run: Run) -> dict[str, int]:
    columns = ("opened", "resumed", "failed", "events", "bytes")
    (row,) = run.query(
        f"SELECT {', '.join(f'sum({name})' for name in columns)} FROM watches WHERE resource = 'deployments'"
    )
    return dict(zip(columns, row, strict=True))


def test_watches_are_held_and_their_events_counted(tmp_path: Path) -> None:
    async def then(run: Run, cluster: Cluster) -> None:
        work = asyncio.create_task(run.phase(read(verb="watch", held=25, concurrency=5, duration=0.5)))
        while not (cluster.connections and run.work.words().startswith("25 of 25 watches held")):
            await asyncio.sleep(0.005)
        assert len(cluster.connections) == 3
        await cluster.request("PATCH", next(path for path in cluster.objects if "web-00" in path), b'{"x": 1}')
        assert await work == DONE
        assert all(connection.closed and not connection.streams for connection in cluster.connections)
        found = watches(run)
        assert (found["opened"], found["resumed"], found["failed"]) == (25, 0, 0)
        assert found["events"] == 25 * 2  # the change, and what its controller made of it
        assert found["bytes"] > found["events"] * 100
        assert run.query("SELECT max(held) FROM watches") == [(25,)]
        sums = run.sums("read")
        assert sums["deployments", "watch"]["intended"] == sums["deployments", "watch"]["accepted"] == 25
        assert sums["deployments", "list"]["accepted"] == 25

    scenario(tmp_path, then)


def test_a_watch_that_ends_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hold, "_FIRST_PAUSE_S", 0.01)

    async def then(run: Run, cluster: Cluster) -> None:
        work = asyncio.create_task(run.phase(read(verb="watch", held=1, duration=1.0)))
        while not (cluster.connections and cluster.connections[0].streams):
            await asyncio.sleep(0.005)
        (connection,) = cluster.connections
        place = next(path for path in cluster.objects if "web-00" in path)

        async def again() -> dict[str, str]:
            before = len(connection.paths)
            while len(connection.paths) == before:
                await asyncio.sleep(0.005)
            await asyncio.sleep(0.02)
            return {name: value[0] for name, value in parse_qs(urlsplit(connection.paths[-1]).query).items()}

        begun = int(parse_qs(urlsplit(connection.paths[0]).query)["resourceVersion"][0])
        await cluster.request("PATCH", place, b'{"x": 1}')
        await asyncio.sleep(0.05)
        connection.end()
        assert int((await again())["resourceVersion"]) == begun + 2
        connection.end("connection reset")
        assert int((await again())["resourceVersion"]) == begun + 2
        lists = len(queries(cluster, DEPLOYMENTS))
        connection.refusals.append((410, b'{"reason": "Expired"}'))
        connection.end()
        await again()
        await again()
        assert len(queries(cluster, DEPLOYMENTS)) == lists + 1  # only a list can tell where to go on
        assert await work == DONE
        found = watches(run)
        assert (found["opened"], found["resumed"], found["failed"]) == (1, 3, 1)

    scenario(tmp_path, then)


def test_watches_are_opened_at_a_rate(tmp_path: Path) -> None:
    async def then(run: Run, cluster: Cluster) -> None:
        work = asyncio.create_task(run.phase(read(verb="watch", held=10, rate=20.0, duration=0.7)))
        await asyncio.sleep(0.3)
        assert sum(len(connection.paths) for connection in cluster.connections) <= 8
        assert await work == DONE
        assert watches(run)["opened"] == 10

    scenario(tmp_path, then)


def test_watches_that_are_refused_stop_the_phase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hold, "FORGIVEN_S", 0.0)

    async def then(run: Run, cluster: Cluster) -> None:
        begun = cluster.connect

        def connect(number: int) -> Any:
            connection = begun(number)
            connection.refusals = [(403, b'{"reason": "Forbidden", "message": "no"}')] * 9
            return connection

        cluster.connect = connect  # type: ignore[method-assign]
        outcome = await run.phase(read(verb="watch", held=1, duration=5.0))
        assert outcome == Outcome("stopped", "reads of deployments were refused: 403 Forbidden: no")

    scenario(tmp_path, then)
