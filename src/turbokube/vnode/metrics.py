"""What the engine tells of itself, in Prometheus' text format."""

from __future__ import annotations

import asyncio
import bisect
import collections
import time
from collections.abc import Callable, Iterable

from .. import procfs

Probes = dict[str, Callable[[], str]]  # path → what is wrong

_PREFIX = "turbokube_fleet_"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds


class Histogram:
    """Counts of observations up to each bound, and their sum."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect.bisect_left(self.bounds, value)] += 1
        self.sum += value

    def quantile(self, share: float) -> float:
        """The bound below which at least `share` of the observations are; 0 without any, infinite above the last."""
        wanted, seen = share * sum(self.counts), 0
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            seen += count
            if seen and seen >= wanted:
                return bound
        return 0.0

    def lines(self, name: str) -> Iterable[str]:
        seen = 0
        for bound, count in zip((*self.bounds, "+Inf"), self.counts, strict=True):
            seen += count
            yield f'{name}_bucket{{le="{bound}"}} {seen}'
        yield f"{name}_sum {self.sum}"
        yield f"{name}_count {seen}"


class Counts:
    """Every counter of the engine. Whoever does a thing counts it here."""

    __slots__ = (
        "container_restarts",
        "latency",
        "lateness",
        "pod_starts",
        "renewal_errors",
        "renewals",
        "requests",
        "rewatches",
        "watch_restarts",
        "watches",
    )

    def __init__(self) -> None:
        self.renewals = 0
        self.renewal_errors = 0
        self.lateness = Histogram(_SECONDS)
        self.latency = Histogram(_SECONDS)
        self.pod_starts = 0
        self.container_restarts = 0
        self.watches = 0  # vnodes' own that are open
        self.rewatches = 0  # of vnodes' own, those begun again
        self.watch_restarts: Callable[[], int] = int
        self.requests: collections.Counter[tuple[str, str, str]] = collections.Counter()  # verb, resource, code

    def renew(self, lateness: float, latency: float) -> None:
        """A Lease was renewed: sent so many seconds after it was due, answered so many after that."""
        self.renewals += 1
        self.lateness.observe(max(0.0, lateness))
        self.latency.observe(latency)


def exposition(
    counts: Counts, gauges: dict[str, float], lag: float, cpu: float | None = None, memory: int | None = None
) -> str:
    """One scrape. `gauges` by metric name without prefix, labels included; `lag` in seconds.

    CPU seconds and resident bytes are this process's unless they are given.
    """
    cpu, memory = time.process_time() if cpu is None else cpu, procfs.memory().resident if memory is None else memory
    lines = []

    def family(name: str, kind: str, samples: Iterable[str]) -> None:
        lines.append(f"# TYPE {name} {kind}")
        lines.extend(samples)

    families: dict[str, list[str]] = {}
    for key, value in gauges.items():
        families.setdefault(key.partition("{")[0], []).append(f"{_PREFIX}{key} {value}")
    for name, samples in families.items():
        family(_PREFIX + name, "gauge", samples)
    for name, total in (
        ("lease_renewals_total", counts.renewals),
        ("lease_renewal_errors_total", counts.renewal_errors),
        ("pod_starts_total", counts.pod_starts),
        ("container_restarts_total", counts.container_restarts),
        ("watch_restarts_total", counts.watch_restarts()),
    ):
        family(_PREFIX + name, "counter", [f"{_PREFIX}{name} {total}"])
    for name, histogram in (("lease_lateness_seconds", counts.lateness), ("lease_latency_seconds", counts.latency)):
        family(_PREFIX + name, "histogram", histogram.lines(_PREFIX + name))
    family(
        f"{_PREFIX}requests_total",
        "counter",
        (
            f'{_PREFIX}requests_total{{verb="{verb}",resource="{resource}",code="{code}"}} {count}'
            for (verb, resource, code), count in sorted(counts.requests.items())
        ),
    )
    family(f"{_PREFIX}loop_lag_seconds", "gauge", [f"{_PREFIX}loop_lag_seconds {lag}"])
    family("process_cpu_seconds_total", "counter", [f"process_cpu_seconds_total {cpu}"])
    family("process_resident_memory_bytes", "gauge", [f"process_resident_memory_bytes {memory}"])
    family("process_start_time_seconds", "gauge", [f"process_start_time_seconds {_STARTED}"])
    return "\n".join(lines) + "\n"


async def serve(
    text: Callable[[], str], port: int = 0, address: str = "127.0.0.1", probes: Probes | None = None
) -> asyncio.Server:
    """Answer GET /metrics and probes: on `port` of an address of ours, or on a free one if that is taken."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10.0)
            path = head.split(b" ", 2)[1].decode(errors="replace").partition("?")[0] if head.startswith(b"GET ") else ""
            status, body = b"200 OK", b""
            if path == "/metrics":
                body = text().encode()
            elif probes and path in probes:
                words = probes[path]()
                status, body = (b"503 Service Unavailable" if words else status), (words or "ok").encode() + b"\n"
            else:
                status, body = b"404 Not Found", b"see /metrics\n"
            kind = b"text/plain; version=0.0.4; charset=utf-8"
            writer.write(
                b"HTTP/1.1 %b\r\nContent-Type: %b\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b"
                % (status, kind, len(body), body)
            )
            await writer.drain()
        except (ConnectionError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the reader went away, or spoke no HTTP
        finally:
            writer.close()

    try:
        return await asyncio.start_server(answer, address, port)
    except OSError:
        return await asyncio.start_server(answer, address, 0)


_STARTED = time.time()
