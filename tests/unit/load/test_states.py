from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from tests.unit.load.cluster import Cluster
from turbokube.api.transport import Response
from turbokube.load.phase import LoadError
from turbokube.load.states import State, Watches, gone, rolled, scheduled, worked

PODS = "/api/v1/pods"
PLACE = "/api/v1/namespaces/a/pods/x0"


def state(generation: int = 1, **status: Any) -> State:
    made = {"metadata": {"name": "x", "generation": generation}, "spec": {"replicas": 3}, "status": status}
    return msgspec.convert(made, State)


def counts(**status: Any) -> dict[str, Any]:
    return {"observedGeneration": 2, "replicas": 3, "updatedReplicas": 3, "availableReplicas": 3, **status}


@pytest.mark.parametrize(
    ("resource", "found", "holds"),
    [
        ("deployments", state(2, **counts()), True),
        ("deployments", state(1, **counts()), False),  # seen before the patch was
        ("deployments", state(2, **counts(observedGeneration=1)), False),
        ("deployments", state(2, **counts(replicas=4)), False),  # an old pod is left
        ("deployments", state(2, **counts(availableReplicas=2)), False),
        ("deployments", None, False),
        ("statefulsets", state(2, **counts(currentRevision="a", updateRevision="b")), False),
        ("statefulsets", state(2, **counts(currentRevision="b", updateRevision="b")), True),
        (
            "daemonsets",
            state(2, observedGeneration=2, desiredNumberScheduled=8, updatedNumberScheduled=8, numberAvailable=7),
            False,
        ),
        (
            "daemonsets",
            state(2, observedGeneration=2, desiredNumberScheduled=8, updatedNumberScheduled=8, numberAvailable=8),
            True,
        ),
    ],
)
def test_rolled(resource: str, found: State | None, holds: bool) -> None:
    assert rolled(resource, 2)(found) is holds


def test_a_daemonset_is_complete_when_each_node_has_its_pod() -> None:
    assert scheduled(state(observedGeneration=1, desiredNumberScheduled=8, numberReady=8))
    assert not scheduled(state(observedGeneration=1, desiredNumberScheduled=8, numberReady=7))
    assert not scheduled(state(observedGeneration=0, desiredNumberScheduled=0, numberReady=0))
    assert not scheduled(None)


def test_a_job_works_when_its_pods_run_or_have_succeeded() -> None:
    assert worked(3)(state(ready=1, succeeded=2))
    assert not worked(3)(state(ready=1, succeeded=1))


def test_waiting_for_what_is_not_known_yet() -> None:
    async def scenario() -> None:
        cluster, order = Cluster(), []
        await cluster.request("POST", "/api/v1/namespaces", b'{"metadata": {"name": "a"}}')
        await cluster.request("POST", "/api/v1/namespaces/a/pods", b'{"metadata": {"name": "x0"}}')
        watches = Watches(cluster, "r")

        async def work() -> None:
            states = watches.of(PODS)
            assert states is watches.of(PODS)
            await states.until("a", "x0", lambda pod: pod is not None)
            await states.until("a", "y", gone)  # never was there
            order.append("there")
            await cluster.request("DELETE", PLACE)
            await states.until("a", "x0", gone)
            order.append("gone")

        await watches.beside(work())
        assert order == ["there", "gone"]
        assert PLACE not in cluster.objects

    asyncio.run(scenario())


def test_statuses_of_other_kinds_are_their_own_business() -> None:
    async def scenario() -> None:
        cluster, path = Cluster(), "/apis/example.com/v1/geese"
        goose = b'{"metadata": {"name": "x0"}, "spec": [], "status": {"ready": true, "replicas": "many"}}'
        await cluster.request("POST", "/api/v1/namespaces", b'{"metadata": {"name": "a"}}')
        await cluster.request("POST", "/apis/example.com/v1/namespaces/a/geese", goose)
        watches = Watches(cluster, "r")

        async def work() -> None:
            await watches.of(path).until("a", "x0", lambda made: made is not None)

        await watches.beside(work())

    asyncio.run(scenario())


def test_objects_go_with_the_definition_of_their_kind() -> None:
    async def scenario() -> None:
        cluster = Cluster()
        cluster.fault = lambda method, path: Response(404, b"{}")
        watches = Watches(cluster, "r")
        await watches.beside(_gone(watches))

    async def _gone(watches: Watches) -> None:
        await watches.of("/apis/example.com/v1/geese").until("a", "goose", gone)

    asyncio.run(scenario())


def test_what_cannot_be_watched_ends_the_work() -> None:
    async def scenario() -> None:
        cluster = Cluster()
        cluster.fault = lambda method, path: Response(403, b'{"reason": "Forbidden", "message": "no"}')
        watches = Watches(cluster, "r")
        with pytest.raises(LoadError, match="objects cannot be watched: 403 Forbidden: no"):
            await watches.beside(watches.of(PODS).run())

    asyncio.run(scenario())


def test_the_first_of_many_errors_is_the_one_that_counts() -> None:
    async def fails() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(_raise())

    async def _raise() -> None:
        raise LoadError("this is why")

    async def scenario() -> None:
        with pytest.raises(LoadError, match="this is why"):
            await Watches(Cluster(), "r").beside(fails())

    asyncio.run(scenario())
