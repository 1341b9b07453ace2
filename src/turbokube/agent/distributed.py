"""A phase whose load others fire: pods of an Indexed Job, each a segment of it; what they record becomes one bundle."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import secrets
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec

from turbokube import disk
from turbokube.api.credentials import Credential, from_kubeconfig
from turbokube.api.transport import ApiError, Unreachable
from turbokube.bundle.merge import merge
from turbokube.bundle.writer import FILE
from turbokube.load.phase import LateError, LoadError
from turbokube.load.work import Context
from turbokube.measure.observer import Progress
from turbokube.profile.phases import Create
from turbokube.workload import ground, job, pods
from turbokube.workload.cluster import Cluster, Meta, WorkloadError
from turbokube.workload.job import LOAD, LoadJob

from .spec import Begin, RunSpec, Said, Told

_POLL_S = 1.0  # between two looks at the segments
_LEAD_S = 3.0  # in which all are told when to begin
_STARTING_S = 180.0  # for pods to be Ready
# of the deadline: that segments end first and what they recorded is fetched in time
_MARGIN, _LEAST_MARGIN_S = 0.1, 15.0
_FETCH_S = 300.0
_ENDING_S = 120.0  # for the Job's pods to be gone
_SAID, _WORKER = "said.json", "worker"  # beside a segment's bundle
_ENDED = ("done", "deadline", "stopped")
_ACTORS = ("load", "observer", "scraper")


class _Status(msgspec.Struct, rename="camel"):
    phase: str = ""
    conditions: list[dict[str, Any]] = []


class _Spec(msgspec.Struct, rename="camel"):
    node_name: str = ""


class _Pod(msgspec.Struct):
    metadata: Meta
    spec: _Spec = msgspec.field(default_factory=_Spec)
    status: _Status = msgspec.field(default_factory=_Status)

    @property
    def ready(self) -> bool:
        return any(one.get("type") == "Ready" and one.get("status") == "True" for one in self.status.conditions)


class _Secret(msgspec.Struct):
    data: dict[str, str] = {}


class _Job(msgspec.Struct):
    metadata: Meta
    status: dict[str, Any] = {}


class Distributed:
    """One phase of kind create, carried out by others. An agent that comes after this one's end goes on following."""

    def __init__(self, context: Context, spec: RunSpec, how: LoadJob) -> None:
        if not isinstance(context.phase, Create):
            raise LoadError(
                f"phase {context.phase.name} is of kind {context.phase.kind}, and the load is a Job; allowed is create"
            )
        self.phase = context.phase
        self.seen = Progress()
        self.span: tuple[float, float] | None = None
        self._context = context
        self._spec = spec
        self._how = how
        self._segments = min(how.segments, self.phase.namespaces)
        self._carrier = how.carrier(spec.run)
        self._base = f"/api/v1/namespaces/{self._carrier.namespace}/pods"
        self._said: dict[int, Said] = {}
        self._word = ""

    def words(self) -> str:
        return ""

    def missing(self) -> str:
        late = [number for number in range(self._segments) if self._state(number) not in _ENDED]
        return f"{len(late)} of {self._segments} load generators have not ended: {late[:10]}"

    async def run(self) -> None:
        """Until every segment's bundle is in this run's."""
        async with _at(self._how) as cluster:
            await self._have(cluster)
            there = await self._all_ready(cluster)
            await self._begin(cluster, there)
            while not all(self._state(number) in _ENDED for number in range(self._segments)):
                await asyncio.sleep(_POLL_S)
                await self._look(cluster)
                if lost := [number for number in range(self._segments) if self._state(number) == "waiting"]:
                    await self._stop(cluster, words := f"load generators {lost} were lost with all that they had seen")
                    raise LoadError(words)
            await self._gather(cluster)
        if bad := {number: one for number, one in self._said.items() if one.state != "done"}:
            notes = "; ".join(f"load generator {number}: {one.state}, {one.note}" for number, one in bad.items())
            late = all(one.state == "deadline" for one in bad.values())
            raise (LateError if late else LoadError)(notes)

    async def halt(self, why: str) -> None:
        """Have the segments stop, and keep what they recorded."""
        async with _at(self._how) as cluster:
            await self._stop(cluster, why)

    async def _stop(self, cluster: Cluster, why: str) -> None:
        for pod in (await self._pods(cluster)).values():
            await cluster.request("POST", f"{self._proxy(pod)}/stop/{self._word}", {"why": why})
        await self._look(cluster)
        end = time.monotonic() + _LEAST_MARGIN_S
        while time.monotonic() < end and any(one.state in ("begun", "running") for one in self._said.values()):
            await asyncio.sleep(_POLL_S)
            await self._look(cluster)
        await self._gather(cluster)

    # the Job

    async def _have(self, cluster: Cluster) -> None:
        """The Job of this phase: the one that an earlier agent made, or a new one."""
        run, namespace = self._spec.run, self._carrier.namespace
        found = await cluster.find("Job", LOAD, namespace, _Job)
        if found is not None and job.phase_of(found.metadata.annotations) == self.phase.name:
            self._word = await self._word_of(cluster)
            self._said = {number: self._kept(number) for number in range(self._segments) if self._has(number)}
            return
        if found is not None:
            await ground.clear(cluster, self._spec.run, self._carrier.namespace, _ENDING_S, LOAD)
        self._word = secrets.token_hex(16)
        told = Told(spec=self._told_spec(), phase=self.phase, segments=self._segments, word=self._word)
        files = {job.TOLD: msgspec.json.encode(told)}
        for actor in _ACTORS:
            files[f"{actor}.conf"] = _kubeconfig(self._spec.target.credential(actor))
        for one in (
            *await ground.wanted(cluster, run, namespace),
            pods.secret(LOAD, run, namespace, files),
            job.job(run, self.phase.name, self._segments, self._carrier),
        ):
            await cluster.apply(one)

    def _told_spec(self) -> RunSpec:
        """The run as a pod knows it: the target by files of the Secret, nothing to scrape."""
        target, credential = self._spec.target, self._spec.target.credential("load")
        known = msgspec.structs.replace(
            target,
            servers=target.addresses(credential),
            kubeconfigs={actor: f"{pods.FOLDER}/{actor}.conf" for actor in _ACTORS},
            contexts={},
            components=[],
            store=None,
        )
        return RunSpec(run=self._spec.run, target=known, scrape_interval=self._spec.scrape_interval)

    async def _word_of(self, cluster: Cluster) -> str:
        found = await cluster.find("Secret", LOAD, self._carrier.namespace, _Secret)
        if found is None:
            raise LoadError(f"the Job of phase {self.phase.name} has lost its Secret")
        return msgspec.json.decode(base64.b64decode(found.data[job.TOLD]), type=Told).word

    # its pods

    async def _pods(self, cluster: Cluster) -> dict[int, _Pod]:
        """The living pod of each segment."""
        found = await cluster.items(self._base, _Pod, pods.selector(self._spec.run, LOAD))
        alive = [
            pod for pod in found if pod.status.phase in ("Pending", "Running") and not pod.metadata.deletion_timestamp
        ]
        return {int(pod.metadata.labels.get(job.INDEX, 0)): pod for pod in alive}

    def _proxy(self, pod: _Pod) -> str:
        return f"{self._base}/{pod.metadata.name}:{pods.PORT}/proxy"

    async def _all_ready(self, cluster: Cluster) -> dict[int, _Pod]:
        end = time.monotonic() + _STARTING_S
        while True:
            there = await self._pods(cluster)
            ready = {number: pod for number, pod in there.items() if pod.ready}
            if all(number in ready or self._has(number) for number in range(self._segments)):
                return ready
            if time.monotonic() > end:
                late = next((pod for number, pod in sorted(there.items()) if number not in ready), None)
                why = await cluster.text(f"{self._base}/{late.metadata.name}/log?tailLines=3") if late else ""
                words = f"in time only {len(ready)} of {self._segments} load generators were Ready"
                raise LoadError(f"{words}; {why}" if why else words)
            await asyncio.sleep(_POLL_S)

    async def _begin(self, cluster: Cluster, there: dict[int, _Pod]) -> None:
        """Tell all when to begin, unless they have."""
        await self._look(cluster)
        if any(one.state != "waiting" for one in self._said.values()):
            return  # an earlier agent has
        margin = max(_LEAST_MARGIN_S, self.phase.deadline * _MARGIN)
        left = self.phase.deadline - self._context.elapsed() - _LEAD_S - margin
        begin = msgspec.to_builtins(Begin(at=time.time() + _LEAD_S, deadline=max(1.0, left)))
        for pod in there.values():
            (await cluster.request("POST", f"{self._proxy(pod)}/begin/{self._word}", begin)).checked()
        self._said = {}  # what they said before

    def _state(self, number: int) -> str:
        one = self._said.get(number)
        return one.state if one is not None else ""

    async def _look(self, cluster: Cluster) -> None:
        """Ask every segment how far it is; one that does not answer now is asked again."""
        there = await self._pods(cluster)
        await asyncio.gather(*(self._ask(cluster, number, pod) for number, pod in there.items()))
        each = self._said.values()
        self.seen = Progress(
            sum(one.created for one in each), sum(one.scheduled for one in each), sum(one.running for one in each)
        )

    async def _ask(self, cluster: Cluster, number: int, pod: _Pod) -> None:
        try:
            answer = await cluster.request("GET", f"{self._proxy(pod)}/progress")
            if answer.ok:
                self._said[number] = msgspec.json.decode(answer.body, type=Said)
        except (Unreachable, msgspec.MsgspecError):
            return

    # what they recorded

    async def _gather(self, cluster: Cluster) -> None:
        """Fetch the bundle of each that has ended, have them as one, and remove the Job."""
        there = await self._pods(cluster)
        for number, pod in sorted(there.items()):
            if self._state(number) in _ENDED and not self._has(number):
                await self._fetch(cluster, number, pod)
        have = [number for number in range(self._segments) if self._has(number)]
        if have:
            told = await asyncio.to_thread(merge, self._context.writer, {one: self._folder(one) for one in have})
            for one in told:
                one["worker"] = (self._folder(one["segment"]) / _WORKER).read_text()
            self._context.writer.meta(segments=told)
            self.span = min(one["started"] for one in told), max(one["ended"] or time.time() for one in told)
            self._context.writer.flush()
            shutil.rmtree(self._folder(0).parent.parent)
        await ground.clear(cluster, self._spec.run, self._carrier.namespace, _ENDING_S, LOAD)

    async def _fetch(self, cluster: Cluster, number: int, pod: _Pod) -> None:
        """Keep what one recorded, whose pod then ends."""
        answer = (await cluster.request("GET", f"{self._proxy(pod)}/bundle", timeout=_FETCH_S)).checked()
        folder = self._folder(number)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _WORKER).write_text(pod.spec.node_name)
        (folder / _SAID).write_bytes(msgspec.json.encode(self._said[number]))
        disk.replace(folder / FILE, answer.body)

    def _folder(self, number: int) -> Path:
        return self._context.writer.path.parent / "segments" / self._word / str(number)

    def _has(self, number: int) -> bool:
        """Whether what a segment recorded was fetched, by this agent or by one before it."""
        return (self._folder(number) / FILE).exists()

    def _kept(self, number: int) -> Said:
        return msgspec.json.decode((self._folder(number) / _SAID).read_bytes(), type=Said)


@contextlib.asynccontextmanager
async def _at(how: LoadJob) -> AsyncIterator[Cluster]:
    """The cluster that carries the Job, for a while."""
    cluster = Cluster(from_kubeconfig(how.kubeconfig, how.context))
    try:
        yield cluster
    except (ApiError, Unreachable, WorkloadError) as error:
        raise LoadError(f"the cluster that carries the load: {error}") from None
    finally:
        await cluster.close()


def _kubeconfig(credential: Credential) -> bytes:
    """A kubeconfig of one identity, with all that it needs in it."""

    def data(text: str | None) -> str | None:
        return base64.b64encode(text.encode()).decode() if text else None

    cluster = {"server": credential.server, "certificate-authority-data": data(credential.ca)}
    user = {
        "client-certificate-data": data(credential.certificate),
        "client-key-data": data(credential.key),
        "token": credential.token,
    }
    return msgspec.json.encode(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "run",
            "contexts": [{"name": "run", "context": {"cluster": "run", "user": "run"}}],
            "clusters": [{"name": "run", "cluster": {name: value for name, value in cluster.items() if value}}],
            "users": [{"name": "run", "user": {name: value for name, value in user.items() if value}}],
        }
    )
