"""What the API server says of a run's objects: one watch for all of a collection, for those who wait for something."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from turbokube.api.transport import ApiError, Transport
from turbokube.api.watch import ListWatch

from .phase import RUN_LABEL, LoadError


class _Metadata(msgspec.Struct, rename="camel", gc=False):
    name: str
    namespace: str = ""
    generation: int = 0
    deletion_timestamp: str | None = None


class _Spec(msgspec.Struct, gc=False):
    replicas: int = 1


class Status(msgspec.Struct, rename="camel", gc=False):
    """Of Deployments, ReplicaSets, StatefulSets, DaemonSets and Jobs, the counts that tell how far they are."""

    observed_generation: int = 0
    replicas: int = 0
    updated_replicas: int = 0
    available_replicas: int = 0
    current_revision: str = ""
    update_revision: str = ""
    desired_number_scheduled: int = 0
    updated_number_scheduled: int = 0
    number_available: int = 0
    number_ready: int = 0
    succeeded: int = 0
    ready: int = 0


class Named(msgspec.Struct, gc=False):
    """An object that is there: of kinds that have no counts, or others under the same names."""

    metadata: _Metadata


class State(Named, gc=False):
    """An object as it was last seen."""

    spec: _Spec = msgspec.field(default_factory=_Spec)
    status: Status = msgspec.field(default_factory=Status)

    @property
    def observed(self) -> bool:
        """Whether its controller has seen what is asked of it."""
        return self.status.observed_generation >= self.metadata.generation


_LOOK_EVERY_S = 1.0
Holds = Callable[[Any], bool]  # of a Named, which is a State where there are counts; None: it is not there
_COUNTED = {
    "/apis/apps/v1/deployments",
    "/apis/apps/v1/replicasets",
    "/apis/apps/v1/statefulsets",
    "/apis/apps/v1/daemonsets",
    "/apis/batch/v1/jobs",
}


class States:
    """Follows the objects of a run in one collection; who waits is woken when what it waits for holds."""

    def __init__(self, transport: Transport, path: str, run: str) -> None:
        kind: type[Named] = State if path in _COUNTED else Named
        self._watch = ListWatch(transport, path, kind, {"labelSelector": f"{RUN_LABEL}={run}"})
        self._states: dict[tuple[str, str], Named] = {}
        self._waiting: dict[tuple[str, str], list[tuple[Holds, asyncio.Future[float]]]] = {}
        self._synced = False

    async def run(self) -> None:
        """Follow the collection for ever; raises ApiError when that is refused."""
        while True:
            try:
                await self._follow()
            except ApiError as error:
                if error.status != 404:
                    raise
            self._forget(set(self._states))  # its kind has gone, with all that was of it
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _follow(self) -> None:
        listed: set[tuple[str, str]] = set()
        async for event in self._watch.events():
            if event.object is None:
                self._forget(self._states.keys() - listed)
                listed.clear()
                continue
            key = (event.object.metadata.namespace, event.object.metadata.name)
            if event.listed:
                listed.add(key)
            if event.type == "DELETED":
                self._states.pop(key, None)
            else:
                self._states[key] = event.object
            if key in self._waiting:
                self._look(key)

    def _forget(self, gone: set[tuple[str, str]]) -> None:
        """These are not there; of all others it is known how they are."""
        self._synced = True
        for key in gone:
            del self._states[key]
        for key in list(self._waiting):
            self._look(key)

    async def until(self, namespace: str, name: str, holds: Holds) -> float:
        """Wall-clock time at which it was seen to hold of an object, awaited."""
        key = (namespace, name)
        if self._synced and holds(self._states.get(key)):
            return time.time()
        future: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, []).append((holds, future))
        return await future

    def there(self, namespace: str, name: str) -> bool:
        """Whether the object was there when it was last seen."""
        return (namespace, name) in self._states

    def get(self, namespace: str, name: str) -> State:
        """An object with counts that is there, as it was last seen."""
        state = self._states[namespace, name]
        assert isinstance(state, State)
        return state

    def _look(self, key: tuple[str, str]) -> None:
        if not self._synced:
            return
        state, now = self._states.get(key), time.time()
        waiting = self._waiting.pop(key)
        left = [one for one in waiting if not one[1].done() and not one[0](state)]
        for one in waiting:
            if one not in left and not one[1].done():
                one[1].set_result(now)
        if left:
            self._waiting[key] = left


class Watches:
    """The watches of one phase, each begun when it is first needed."""

    def __init__(self, transport: Transport, run: str) -> None:
        self._transport = transport
        self._run = run
        self._states: dict[str, States] = {}
        self._begun: set[asyncio.Task[None]] = set()
        self._ended = asyncio.Event()

    def of(self, path: str) -> States:
        """The objects of the run in a collection, by its path."""
        found = self._states.get(path)
        if found is None:
            found = self._states[path] = States(self._transport, path, self._run)
            self.begin(found.run())
        return found

    def begin(self, watch: Coroutine[Any, Any, None]) -> None:
        """Have one more watch run until the work is done; what it raises ends the work."""
        task = asyncio.create_task(watch)
        self._begun.add(task)
        task.add_done_callback(lambda _: self._ended.set())

    async def beside(self, work: Coroutine[Any, Any, None]) -> None:
        """Do the work, and keep the watches for so long. Raises LoadError when one cannot go on."""
        task = asyncio.create_task(work)
        task.add_done_callback(lambda _: self._ended.set())
        try:
            await self._ended.wait()
            for watch in self._begun:
                if watch.done() and not watch.cancelled() and (error := watch.exception()) is not None:
                    raise LoadError(f"objects cannot be watched: {_first(error)}") from None
            await task
        except BaseExceptionGroup as errors:
            raise _first(errors) from None
        finally:
            for one in (task, *self._begun):
                one.cancel()
            await asyncio.gather(task, *self._begun, return_exceptions=True)


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def gone(state: Named | None) -> bool:
    """The object is not there."""
    return state is None


def gone_or_anew(state: Named | None) -> bool:
    """An object whose deletion an earlier agent had accepted is not there, or has been created again by that agent."""
    return state is None or state.metadata.deletion_timestamp is None


def rolled(resource: str, generation: int) -> Holds:
    """Whether all pods of an object are of this generation or a later one, and available, as `kubectl rollout status`.

    `resource`: deployments, statefulsets or daemonsets.
    """

    def holds(state: State | None) -> bool:
        if state is None or not state.observed or state.metadata.generation < generation:
            return False
        status = state.status
        if resource == "daemonsets":
            wanted = status.desired_number_scheduled
            return status.updated_number_scheduled == wanted == status.number_available
        wanted = state.spec.replicas
        if resource == "statefulsets" and status.current_revision != status.update_revision:
            return False
        return status.updated_replicas == wanted == status.replicas == status.available_replicas

    return holds


def scheduled(state: State | None) -> bool:
    """Of a DaemonSet: it has a ready pod on each node that it is meant for."""
    if state is None or not state.observed:
        return False
    return 0 < state.status.desired_number_scheduled <= state.status.number_ready


def worked(pods: int) -> Holds:
    """Whether so many pods of a Job are ready or have succeeded."""
    return lambda state: state is not None and state.status.ready + state.status.succeeded >= pods
