"""Every component's own metrics, on an interval, into the bundle: only the chosen ones, only what has changed."""

from __future__ import annotations

import asyncio
import importlib.resources
import re
import resource
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import msgspec

from turbokube import procfs
from turbokube.api.credentials import Credential
from turbokube.api.http1 import Http1
from turbokube.api.target import Component
from turbokube.api.transport import ApiError, Transport, Unreachable
from turbokube.bundle.reader import Reader
from turbokube.bundle.writer import Writer

_AWAY_EVERY_S = 1.0  # a component that does not answer is asked this often, so that its outage has sharp ends
_TIMEOUT_S = 20.0
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')
_ESCAPED = re.compile(r"\\(.)")


class Sample(NamedTuple):
    """One line of an exposition: the family's type, the name with its labels, the value."""

    type: bytes
    name: bytes
    value: bytes


class Metric(msgspec.Struct, frozen=True):
    """One chosen metric family. `kinds`: of which components; empty: of all. `by`: summed over all other labels.

    `otherwise`: what older versions call it; the first that a component has is taken.
    """

    name: str
    about: str
    kinds: list[str] = []
    by: list[str] = []
    otherwise: list[str] = msgspec.field(default_factory=list, name="or")


def chosen() -> list[Metric]:
    """The families that are kept (metrics.json)."""
    text = importlib.resources.files(__package__).joinpath("metrics.json").read_bytes()
    return msgspec.json.decode(text, type=list[Metric])


def families(kind: str) -> list[Metric]:
    """The families to look for at a component of this kind."""
    return [metric for metric in chosen() if not metric.kinds or kind in metric.kinds]


def read(text: bytes, wanted: list[Metric]) -> list[Sample]:
    """The samples of the wanted families in a text exposition."""
    found: list[Sample] = []
    for metric in wanted:
        for name in (metric.name, *metric.otherwise):
            samples = list(parse(text, name.encode()))
            if samples:
                found.extend(_summed(samples, {*metric.by, "le"}) if metric.by else samples)
                break
    return found


def parse(text: bytes, family: bytes) -> Iterator[Sample]:
    """The samples of one family.

    It is found by its TYPE line, so that what is not wanted is passed over by a search, not line by line.
    """
    head = b"# TYPE " + family + b" "
    at = 0 if text.startswith(head) else text.find(b"\n" + head) + 1
    if not text.startswith(head, at):
        return
    end_of_head = text.find(b"\n", at)
    kind = text[at + len(head) : end_of_head].strip()
    end = text.find(b"\n#", end_of_head)
    for line in text[end_of_head + 1 : end if end >= 0 else len(text)].splitlines():
        close = line.rfind(b"}") + 1 or line.find(b" ")
        value = line[close:].split()
        if close > 0 and value and value[0] != b"NaN":  # a quantile of nothing
            yield Sample(kind, line[:close], value[0])


def _summed(samples: Iterable[Sample], keep: set[str]) -> list[Sample]:
    sums: dict[tuple[bytes, bytes], float] = {}
    for kind, sample, value in samples:
        name, _, rest = sample.decode().partition("{")
        labels = ",".join(f'{key}="{text}"' for key, text in _LABEL.findall(rest) if key in keep)
        group = (kind, f"{name}{{{labels}}}".encode())
        sums[group] = sums.get(group, 0.0) + float(value)
    return [Sample(*group, repr(value).encode()) for group, value in sums.items()]


def identity(sample: bytes) -> tuple[str, str]:
    """Metric and labels (JSON, keys sorted) of a sample's left side.

    Bounds of buckets are written one way whoever sent them: Prometheus 3 clients say le="1.0" where others say le="1".
    """
    name, _, rest = sample.decode().partition("{")
    labels = {key: _ESCAPED.sub(_unescape, value) for key, value in _LABEL.findall(rest)}
    if "le" in labels:
        labels["le"] = "+Inf" if labels["le"] == "+Inf" else f"{float(labels['le']):g}"
    return name, msgspec.json.encode(dict(sorted(labels.items()))).decode()


def _unescape(match: re.Match[str]) -> str:
    return "\n" if match[1] == "n" else match[1]


class Store:
    """Series and their last values; hands over a sample only if it has changed."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        with Reader(writer.path.parent) as reader:
            rows = reader.query("SELECT id, component, metric, labels FROM series")
            self._ids = {(row[1], row[2], row[3]): int(row[0]) for row in rows}
            times = reader.query("SELECT component, max(time) FROM scrapes WHERE ok GROUP BY component")
            self._before: dict[str, float] = {row[0]: row[1] for row in times}
        self._last: dict[tuple[str, bytes], tuple[int, bytes]] = {}

    def take(self, component: Component, now: float, samples: list[Sample], *, everything: bool = False) -> None:
        """Keep one scrape. `everything`: unchanged values too, as the last word of a run."""
        rows = []
        for kind, sample, value in samples:
            key = (component.name, sample)
            last = self._last.get(key)
            if last is None:
                if float(value) == 0.0 and kind != b"gauge":
                    continue  # most counters never move; absent says the same
                number, fresh = self._series(component, kind, sample)
                if fresh and kind != b"gauge" and component.name in self._before:
                    rows.append((number, self._before[component.name], 0.0))  # it rose from zero since then
            elif last[1] == value and not everything:
                continue
            else:
                number = last[0]
            self._last[key] = (number, value)
            rows.append((number, now, float(value)))
        self._before[component.name] = now
        self._writer.insert("samples", rows)

    def last(self, component: str, sample: bytes) -> float | None:
        """The value that a sample had last; None if it was never kept."""
        found = self._last.get((component, sample))
        return None if found is None else float(found[1])

    def _series(self, component: Component, kind: bytes, sample: bytes) -> tuple[int, bool]:
        metric, labels = identity(sample)
        key = (component.name, metric, labels)
        if key in self._ids:
            return self._ids[key], False
        number = self._ids[key] = len(self._ids) + 1
        self._writer.insert("series", [(number, component.name, component.kind, metric, labels, kind.decode())])
        return number, True


@dataclass
class _Watched:
    """One component under scrape, and what is known of its last life."""

    component: Component
    wanted: list[Metric]
    transport: Transport | None = None
    answered: float = 0.0  # when it last did
    away_since: float = 0.0  # 0: it is there
    started: float = 0.0  # its process's start, as it says
    why: str = ""
    soon: asyncio.Event = field(default_factory=asyncio.Event)


def connect(given: Credential, component: Component) -> Transport:
    """A transport to a component, with its own credential where it asks for one, else the one that is given."""
    files = (component.certificate_file, component.key_file, component.token_file)
    own = [Path(name).read_text() if name else None for name in files]
    credential = Credential(
        server=component.url,
        ca=Path(component.ca_file).read_text() if component.ca_file else given.ca,
        certificate=own[0] or (None if own[2] else given.certificate),
        key=own[1] or (None if own[2] else given.key),
        token=own[2] or (None if own[0] else given.token),
        verify=given.verify,
    )
    return Http1(credential, [component.url], size=1, user_agent="turbokube-scraper")


class Scraper:
    """Scrapes all components, each on its own; knows which are away, and writes their interruptions."""

    def __init__(self, writer: Writer, credential: Credential, components: list[Component], interval: float) -> None:
        self._writer = writer
        self._credential = credential
        self._interval = interval
        self._store = Store(writer)
        self._agent = Component(name="agent", kind="agent", url="")
        self._watched = [_Watched(component, families(component.kind)) for component in components]

    def away(self) -> list[str]:
        """Names of the components that do not answer now."""
        return [one.component.name for one in self._watched if one.away_since]

    def names(self) -> list[str]:
        """Names of all components."""
        return [one.component.name for one in self._watched]

    def silent(self, kind: str) -> float:
        """Seconds since when no component of this kind has answered; 0 while one does, or none ever did."""
        since = [one.away_since for one in self._watched if one.component.kind == kind and one.answered]
        return time.time() - max(since) if since and all(since) else 0.0

    def latest(self, metric: str) -> dict[str, float]:
        """The last value of a metric without labels, by component."""
        values = {name: self._store.last(name, metric.encode()) for name in self.names()}
        return {name: value for name, value in values.items() if value is not None}

    async def now(self, names: Sequence[str] = ()) -> None:
        """One more scrape of these, of all when none is named."""
        await asyncio.gather(*(self._scrape(one) for one in self._watched if not names or one.component.name in names))

    def nudge(self) -> None:
        """Someone got no answer: look at the API servers, and what is before them, now, not at the next interval."""
        for one in self._watched:
            if one.component.kind in ("kube-apiserver", "load-balancer"):
                one.soon.set()

    async def run(self) -> None:
        """Scrape for ever."""
        try:
            async with asyncio.TaskGroup() as group:
                for one in self._watched:
                    group.create_task(self._follow(one))
                group.create_task(self._follow_self())
        finally:
            for one in self._watched:
                if one.transport is not None:
                    await one.transport.close()

    async def last(self) -> None:
        """One more scrape of all, kept whole."""
        await asyncio.gather(*(self._scrape(one, everything=True) for one in self._watched))
        self._self(everything=True)

    async def _follow(self, one: _Watched) -> None:
        while True:
            one.soon.clear()
            began = time.monotonic()
            await self._scrape(one)
            pause = _AWAY_EVERY_S if one.away_since else self._interval
            try:
                async with asyncio.timeout(max(0.0, pause - (time.monotonic() - began))):
                    await one.soon.wait()
                await asyncio.sleep(_AWAY_EVERY_S / 2)  # a burst of complaints is one
            except TimeoutError:
                pass

    async def _scrape(self, one: _Watched, *, everything: bool = False) -> None:
        now, body, error = time.time(), b"", ""
        try:
            if one.transport is None:
                one.transport = connect(self._credential, one.component)
            path = one.component.metrics_path
            body = (await one.transport.request("GET", path, timeout=_TIMEOUT_S)).checked().body
            samples = await asyncio.to_thread(read, body, one.wanted)
            self._store.take(one.component, now, samples, everything=everything)
            self._came(one, now, samples)
        except (Unreachable, ApiError, OSError, ValueError) as problem:
            error = str(problem) or type(problem).__name__
            # a server that refuses us, or talks no Prometheus, is there all the same
            if isinstance(problem, Unreachable) or (isinstance(problem, ApiError) and problem.status >= 500):
                self._went(one, now, error)
        row = (one.component.name, now, time.time() - now, int(not error), error or None, len(body))
        self._writer.insert("scrapes", [row])

    # interruptions

    def _went(self, one: _Watched, now: float, error: str) -> None:
        error = " ".join(error.split())[:100]  # a component's words may be a page
        if not one.away_since and one.answered:  # what never answered has not been interrupted
            one.away_since, one.why = now, error
            self._writer.insert("interruptions", [(now, None, one.component.name, f"does not answer: {error}")])

    def _came(self, one: _Watched, now: float, samples: list[Sample]) -> None:
        started = next((float(value) for _, name, value in samples if name == b"process_start_time_seconds"), 0.0)
        restarted = bool(one.started and started and abs(started - one.started) > 1.0)
        if one.away_since:
            detail = f"{'restarted' if restarted else 'did not answer'}: {one.why}"
            self._writer.execute(
                "UPDATE interruptions SET ended = ?, detail = ? WHERE started = ? AND what = ?",
                [(now, detail, one.away_since, one.component.name)],
            )
        elif restarted:
            row = (one.answered, max(started, one.answered), one.component.name, "restarted between two scrapes")
            self._writer.insert("interruptions", [row])
        one.away_since, one.answered, one.started = 0.0, now, started or one.started

    # ourselves

    async def _follow_self(self) -> None:
        while True:
            self._self()
            await asyncio.sleep(self._interval)

    def _self(self, *, everything: bool = False) -> None:
        usage, now = resource.getrusage(resource.RUSAGE_SELF), time.time()
        samples = [
            Sample(b"counter", b"process_cpu_seconds_total", str(usage.ru_utime + usage.ru_stime).encode()),
            Sample(b"gauge", b"process_resident_memory_bytes", str(procfs.memory().resident).encode()),
        ]
        samples += [
            Sample(b"counter", b'turbokube_machine_cpu_seconds_total{mode="%s"}' % mode, str(seconds).encode())
            for mode, seconds in zip((b"busy", b"idle"), procfs.processors(), strict=True)
        ]
        self._store.take(self._agent, now, samples, everything=everything)
        self._writer.insert("scrapes", [(self._agent.name, now, time.time() - now, 1, None, 0)])
