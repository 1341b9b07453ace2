"""One run at work: its bundle, its witness, its scraper, and the phase that is under way."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import msgspec

import turbokube
from turbokube.api.build import server_build
from turbokube.api.http1 import Http1
from turbokube.api.http2 import Http2
from turbokube.api.transport import ApiError, Unreachable
from turbokube.bundle import runs
from turbokube.bundle.ledger import Ledger
from turbokube.bundle.reader import Reader
from turbokube.bundle.writer import BundleError, Writer
from turbokube.load.kinds import KINDS
from turbokube.load.pacing import Gate
from turbokube.load.phase import RUN_LABEL, SEGMENT_LABEL, LoadError, Phase
from turbokube.load.work import Context, Outcome, Work, carry_out, connections
from turbokube.measure import counts, fidelity, sli
from turbokube.measure.facts import lease_interval, lease_period
from turbokube.measure.observer import Observer, Progress, recorded
from turbokube.measure.scrape import Scraper
from turbokube.measure.series import Metrics
from turbokube.predict import machine
from turbokube.profile.phases import Create, pods_of

from . import facts
from .guards import Guards, Trip
from .progress import PhaseProgress, Rate
from .spec import RunSpec
from .witness import Witnesses

_ANSWER_WITHIN_S = 15.0  # an API server must answer when a run is opened
_NOBODY = "none"  # the segment of no pod
_TICK_S = 0.1  # of the event loop's lag sampler


@runtime_checkable
class Elsewhere(Protocol):
    """A kind of load whose pods others than this agent watch."""

    @property
    def seen(self) -> Progress:
        """What they have seen."""
        ...

    @property
    def span(self) -> tuple[float, float] | None:
        """When they began and ended (wall clock), once they have."""
        ...

    async def halt(self, why: str) -> None:
        """End them before they have."""
        ...


@dataclasses.dataclass
class Running:
    """A phase under way."""

    work: Work
    context: Context
    task: asyncio.Task[None]
    rate: Rate = dataclasses.field(default_factory=Rate)
    stop_note: str = ""  # why it is being stopped


class Session:
    """Everything of a run that lives in the agent. Make it inside a running event loop, then `start`."""

    def __init__(self, folder: Path, spec: RunSpec, state: Path) -> None:
        self.folder = folder
        self.spec = spec
        self._state = state
        before = runs.read(folder)
        if before is not None:
            runs.same_profile(spec.run, before.get("profile") or {}, spec.profile)
        self.writer = Writer(folder)
        self._resume()
        self.ledger = Ledger(self.writer)
        self.gate = Gate()
        self._load = spec.target.credential("load")
        observer, scraper = spec.target.credential("observer"), spec.target.credential("scraper")
        servers = spec.target.addresses(observer)
        self._transport = Http1(observer, servers, size=2, user_agent="turbokube-observer")
        selector = f"{RUN_LABEL}={spec.run}"
        segment = spec.segment or (_NOBODY if spec.job else "")
        pods = f"{selector},{SEGMENT_LABEL}={segment}" if segment else ""
        self.observer = Observer(self._transport, self.writer, selector, pods=pods)
        components = [*spec.target.components, *spec.target.fronts(), *spec.extra_components]
        self.scraper = Scraper(self.writer, scraper, components, spec.scrape_interval)
        self._background: list[asyncio.Task[None]] = []
        self._under_way: dict[str, Running] = {}
        self._words: dict[str, str] = {}  # the last ones of phases that have ended
        self._shut_at = 0.0
        self.failure: str | None = None
        self.arm(spec.profile)

    def arm(self, profile: Mapping[str, Any]) -> None:
        """Set the guards by a profile; what they stopped may be gone on with."""
        self.tripped: Trip | None = None
        self._guards = Guards.of(
            profile, (self.folder, self._state), self.scraper, lambda: self.observer.node_counts()[:2]
        )

    def _resume(self) -> None:
        """Note since when no agent has lived, if one has before."""
        with Reader(self.folder) as reader:
            sql = "SELECT max(t) FROM (SELECT max(time) AS t FROM lag UNION ALL SELECT max(time) FROM scrapes)"
            last = reader.query(sql)[0][0]
            self._phases = {row["name"]: dict(row) for row in reader.query("SELECT * FROM phases")}
        now = time.time()
        self.writer.execute("UPDATE interruptions SET ended = ? WHERE ended IS NULL", [(now,)])
        if last is not None:
            self.writer.insert("interruptions", [(last, now, "agent", "the run had no agent")])
        self.writer.flush()

    async def start(self) -> None:
        """Begin to observe and to scrape; raises what keeps the API server from being asked."""
        try:
            version = await self._server_version()
        except BaseException:
            await self.close()
            raise
        known = runs.read(self.folder) or {}
        self._meta = {
            "run": self.spec.run,
            "profile": self.spec.profile,
            "target": facts.target_facts(self.spec.target, version, self.spec.profile),
            "hardware": facts.hardware(),
            "elsewhere": facts.elsewhere(
                self.spec.target.servers, [*self.spec.target.components, *self.spec.extra_components]
            ),
            "sync_s": machine.sync_seconds(self.folder),
            "versions": facts.versions(version, self.spec.profile),
            "fidelity": self.spec.profile.get("turbokube_fidelity", "lease"),
            "engine": self.spec.profile.get("turbokube_engine", "builtin"),
            "scrape_interval": self.spec.scrape_interval,
            "started": known.get("started") or time.time(),
            "finished": None,
            "turbokube_version": turbokube.__version__,
        }
        self.writer.meta(**self._meta)
        runs.write(self.folder, self._meta)
        for work in (self.observer.run(), self.scraper.run(), self._watch_ourselves()):
            self._background.append(asyncio.create_task(self._guarded(work)))

    async def _server_version(self) -> str:
        """The API server's version; one that is just coming back, or has not read its RBAC yet, is waited for."""
        end = time.monotonic() + _ANSWER_WITHIN_S
        while True:
            try:
                return (await server_build(self._transport)).git_version
            except Unreachable as error:
                if time.monotonic() > end:
                    words = f"no API server of {self.spec.target.name} answers: {error}"
                    raise Unreachable(words, sent=error.sent) from None
            except ApiError:
                if time.monotonic() > end:
                    raise
            await asyncio.sleep(0.5)

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:
            while isinstance(error, ExceptionGroup):
                error = error.exceptions[0]
            self.failure = f"run {self.spec.run} cannot be measured: {error}"
            self.stop_phase(self.failure)

    # phases

    def submit(self, phases: list[Phase]) -> bool:
        """Begin phases side by side, or go on with them; False if all have ended before. Raises LoadError."""
        names = [phase.name for phase in phases]
        if others := sorted(self._under_way.keys() - names):
            raise LoadError(
                f"phase {', '.join(names)} cannot begin while another of run {self.spec.run} is under way: "
                f"{', '.join(others)}"
            )
        due = [phase for phase in phases if self._due(phase)]
        if self.tripped is not None:
            if others := [name for name in names if name not in self._phases]:
                raise LoadError(
                    f"phase {', '.join(others)} of run {self.spec.run} does not begin: {self.tripped.words}"
                )
            return False
        new = [phase for phase in due if phase.name not in self._under_way]
        contexts = [self._context(phase) for phase in new]
        works = [self._work_of(context) for context in contexts]  # all, before the first begins
        for work, context in zip(works, contexts, strict=True):
            self._begin(work, context)
        return bool(due)

    def _work_of(self, context: Context) -> Work:
        if self.spec.job is None:
            return KINDS[context.phase.kind](context)
        from .distributed import Distributed  # here: few runs need it

        return Distributed(context, self.spec, self.spec.job)

    def knows(self, name: str) -> bool:
        """Whether the run has a phase of that name."""
        return name in self._phases

    def _due(self, phase: Phase) -> bool:
        """Whether the phase has not ended; raises LoadError if it was begun as something else."""
        known = self._phases.get(phase.name)
        if known is None:
            return True
        before = self._spec(phase.name)
        if not before.same_work(phase):
            raise LoadError(
                f"phase {phase.name} of run {phase.run} was begun with other settings: {_changes(before, phase)}"
            )
        return not (known["state"] == "done" or (known["state"] == "deadline" and before.deadline >= phase.deadline))

    def _spec(self, name: str) -> Phase:
        """A phase of this run as it was asked for. Raises LoadError if there is none of that name."""
        if name not in self._phases:
            raise LoadError(f"run {self.spec.run} has no phase {name}")
        phase: Phase = msgspec.json.decode(self._phases[name]["spec"], type=Phase)
        return phase

    def _context(self, phase: Phase) -> Context:
        now = time.time()
        known = self._phases.get(phase.name)
        if known is not None and known["ended"]:
            self.writer.insert("interruptions", [(known["ended"], now, "phase", f"{phase.name} was {known['state']}")])
        started = float(known["started"]) if known is not None else now
        servers = self.spec.target.addresses(self._load)
        return Context(
            phase=phase,
            transport=Http1(self._load, servers, size=connections(phase), user_agent="turbokube-load"),
            writer=self.writer,
            ledger=self.ledger,
            gate=self.gate,
            witness=Witnesses(self.observer, self.scraper),
            phases=self._spec,
            connect=lambda number: Http2(self._load, servers, user_agent="turbokube-load", index=number),
            started=started,
            away_before=self._away_since(started),
        )

    def _begin(self, work: Work, context: Context) -> None:
        phase = context.phase
        spec = msgspec.json.encode(phase).decode()
        self._keep(
            phase.name, kind=phase.kind, spec=spec, state="running", ended=None, note="", started=context.started
        )
        task = asyncio.create_task(self._work(work, context))
        self._under_way[phase.name] = Running(work, context, task)

    async def _work(self, work: Work, context: Context) -> None:
        name = context.phase.name
        try:
            await self.observer.synced.wait()
            outcome = await carry_out(work, context)
        except asyncio.CancelledError:
            if not (note := self._under_way[name].stop_note):
                return  # the agent ends; the phase goes on with the next one
            outcome = Outcome("stopped", note)
            if isinstance(work, Elsewhere):
                await work.halt(note)
        except Exception as error:
            outcome = Outcome("stopped", f"{type(error).__name__}: {error}")
        finally:
            await context.transport.close()
        self.observer.write()
        ended = time.time()
        if isinstance(work, Elsewhere):
            ended = self._take_over(name, work)
        self._keep(name, state=outcome.state, note=outcome.note, ended=ended)
        self._words[name] = work.words()
        with contextlib.suppress(BundleError):  # which _watch_ourselves tells
            await asyncio.to_thread(self.writer.flush)  # who is told of the end finds it in the bundle
        del self._under_way[name]
        if outcome.state == "stopped":
            self.stop_phase(f"phase {name} beside it was stopped")

    def _take_over(self, name: str, work: Elsewhere) -> float:
        """Have what others did as one's own; when they ended."""
        if work.span is None:
            return time.time()
        with contextlib.suppress(BundleError):
            self.writer.flush()
        self.ledger = Ledger(self.writer)
        self._phases[name]["started"] = work.span[0]
        return work.span[1]

    def stop_phase(self, note: str) -> None:
        """End the phases under way, for this reason."""
        for name, one in self._under_way.items():
            if not one.stop_note and self._phases[name]["state"] == "running":
                one.stop_note = note
                one.task.cancel()

    def _away_since(self, started: float) -> float:
        """Seconds since then in which nobody worked at the phase: no agent, unattended, stopped."""
        self.writer.flush()
        sql = "SELECT started, ended FROM interruptions WHERE ended > ? AND what IN (?, ?, ?) ORDER BY started"
        away, until = 0.0, started
        with Reader(self.folder) as reader:
            for begin, end in reader.query(sql, started, "agent", "unattended", "phase"):
                away += max(0.0, end - max(begin, until))
                until = max(until, end)
        return away

    def _keep(self, name: str, **values: Any) -> None:
        row = self._phases.setdefault(name, {"name": name})
        if row.get("started"):
            values.pop("started", None)
        row.update(values)
        columns = ("name", "kind", "spec", "started", "ended", "state", "note")
        self.writer.insert("phases", [tuple(row[column] for column in columns)])

    @property
    def working(self) -> bool:
        """Whether a phase is under way."""
        return bool(self._under_way)

    async def wait(self, seconds: float) -> None:
        """Until all phases under way have ended, at most so long."""
        if self._under_way:
            await asyncio.wait([one.task for one in self._under_way.values()], timeout=seconds)

    def progress(self, name: str) -> PhaseProgress:
        """How far a phase is. Raises LoadError if there is none of that name."""
        phase, row = self._spec(name), self._phases[name]
        one = self._under_way.get(name)
        seen = self._seen(phase)
        intended = sum(entry.replicas for entry in self.ledger.of(name))
        if self.spec.job and isinstance(phase, Create):
            intended = pods_of(phase)
        return PhaseProgress(
            phase=name,
            kind=phase.kind,
            state="running" if one else row["state"],
            intended=intended,
            created=seen.created,
            scheduled=seen.scheduled,
            running=seen.running,
            rate=one.rate.over() if one else 0.0,
            eta=one.rate.left(intended - seen.running) if one else None,
            elapsed=(row["ended"] or time.time()) - row["started"],
            note=row["note"] or "",
            guard=self.tripped.name if self.tripped is not None and row["note"] == self.tripped.words else "",
            words=one.work.words() if one else self._words.get(name, ""),
            paused=not self.gate.is_open,
            away=self.scraper.away(),
        )

    def _seen(self, phase: Phase) -> Progress:
        """The pods of a phase, as those know who watch them."""
        spaces = [phase.namespace(index) for index in phase.indices]
        if self.spec.job is None:
            return self.observer.progress(spaces)
        one = self._under_way.get(phase.name)
        work = one.work if one is not None else None
        return work.seen if isinstance(work, Elsewhere) else recorded(self.folder, spaces)

    # what watches over it

    async def _watch_ourselves(self) -> None:
        """Once a second: lags, the rate, and whether the bundle can be written."""
        while True:
            worst, until = 0.0, time.monotonic() + 1.0
            while (before := time.monotonic()) < until:
                await asyncio.sleep(_TICK_S)
                worst = max(worst, time.monotonic() - before - _TICK_S)
            self._sample(worst)
            if self.writer.error is not None:
                self.failure = f"the bundle cannot be written: {self.writer.error}"
                self.stop_phase(self.failure)
            elif self.working and self.tripped is None and (trip := self._guards.look()) is not None:
                self.trip(trip)

    def trip(self, trip: Trip) -> None:
        """End the phases under way; none begins until `arm`."""
        self.tripped = trip
        self.writer.meta(guard={**dataclasses.asdict(trip), "time": time.time()})
        self.stop_phase(trip.words)

    def _sample(self, loop_lag: float) -> None:
        now = time.time()
        rows = [(now, "loop", loop_lag), (now, "observer", self.observer.lag)]
        self.observer.lag = 0.0
        for one in self._under_way.values():
            phase, sender = one.context.phase, one.context.sender
            rows.append((now, "send", sender.lag))
            sender.lag = 0.0
            one.rate.add(now, self._seen(phase).running)
        self.writer.insert("lag", rows)

    def pause(self) -> None:
        """Nobody attends: create nothing new."""
        if self.gate.is_open and self.working:
            self.gate.shut()
            self._shut_at = time.time()
            self.writer.insert("interruptions", [(self._shut_at, None, "unattended", "nobody followed the run")])

    def proceed(self) -> None:
        """Somebody attends again."""
        if not self.gate.is_open:
            self.gate.reopen()
            sql = "UPDATE interruptions SET ended = ? WHERE started = ? AND what = 'unattended'"
            self.writer.execute(sql, [(time.time(), self._shut_at)])

    # the end

    async def finish(self) -> dict[str, Any]:
        """Last scrape, counts, everything into one file. Raises LoadError while a phase is under way."""
        if self.working:
            raise LoadError(f"run {self.spec.run} cannot be finished while a phase is under way")
        await self.scraper.last()
        errors = await self._count()
        now = time.time()
        self.writer.execute("UPDATE interruptions SET ended = ? WHERE ended IS NULL", [(now,)])
        self.writer.flush()
        measured = await asyncio.to_thread(_fidelity, self.folder)
        self._meta.update(finished=now, measured_fidelity=measured, **({"count_errors": errors} if errors else {}))
        self.writer.meta(**self._meta)
        await self.close(finish=True)
        runs.write(self.folder, self._meta)
        return {"run": self.spec.run, "bundle": str(self.folder), "finished": now}

    async def _count(self) -> dict[str, str]:
        """Counts of every source into the bundle; why a source could not say, by source."""
        target, errors = self.spec.target, {}
        sources: list[tuple[str, Coroutine[Any, Any, dict[str, int]]]] = [
            ("api", counts.of_api(self._transport, None if target.ours else f"{RUN_LABEL}={self.spec.run}"))
        ]
        if target.store is not None:
            sources.append(("store", counts.of_store(target.store)))
        for source, work in sources:
            try:
                found = await work
            except (counts.CountError, ApiError, Unreachable, OSError) as error:
                errors[source] = str(error)
                continue
            self.writer.insert("counts", [(time.time(), source, name, count) for name, count in found.items()])
            if source == "api" and target.ours and found["nodes"] != self.observer.node_counts()[0]:
                # hosts of the control plane are Nodes, too, with pods of their own, which the store's count has
                sources.append(("others", counts.of_api(self._transport, f"{RUN_LABEL}!={self.spec.run}")))
        try:
            self._meta["object_bytes"] = await counts.bytes_each(self._transport, f"{RUN_LABEL}={self.spec.run}")
        except (ApiError, Unreachable) as error:
            errors["object_bytes"] = str(error)
        there = recorded(self.folder).created if self.spec.job else self.observer.there()
        seen = {"pods": there, "nodes": self.observer.node_counts()[0]}
        self.writer.insert("counts", [(time.time(), "observer", name, count) for name, count in seen.items()])
        return errors

    async def close(self, *, finish: bool = False) -> None:
        """End all work and put the bundle in order. An unfinished phase stays one that can be gone on with."""
        tasks = [*(one.task for one in self._under_way.values()), *self._background]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._transport.close()
        try:
            await asyncio.to_thread(self.writer.close, finish=finish)
        except BundleError as error:
            self.failure = str(error)
            if finish:
                raise


def _changes(before: Phase, now: Phase) -> str:
    if type(before) is not type(now):
        return f"kind {before.kind} → {now.kind}"
    old, new = (msgspec.to_builtins(phase) for phase in (before, now))
    differ = [name for name in new if old.get(name) != new[name] and name not in ("deadline", "limits")]
    return ", ".join(f"{name} {old.get(name)!r} → {new[name]!r}" for name in differ)


def _fidelity(folder: Path) -> dict[str, Any]:
    """What the vnodes were to the API servers, as the bundle has it so far."""
    with Reader(folder) as reader:
        metrics, meta = Metrics(reader), reader.meta()
        leases = sli.lease_ratios(reader, metrics, lease_period(metrics, meta))
        return dataclasses.asdict(fidelity.measure(reader, metrics, leases, lease_interval(meta)))
