"""What the agent needs for the pods of a large run: events per second, memory, lag.

    python bench/observer/run.py [--pods 300000] [--rate 0] [--folder DIR]

A server in a process of its own sends the watch of so many pods: each comes to be, is bound, starts, runs and is
ready, five events of 4 kB on average. They go the way they go in a run: over TLS, through the agent's observer, into a
bundle on disk, beside the ledger of their deployments and a load that waits for each deployment's pods.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import resource
import socket
import sys
import tempfile
import time
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.observer import server
from turbokube import procfs
from turbokube.agent import session  # for its weight: all that the agent imports
from turbokube.api.credentials import Credential
from turbokube.api.transport import Unreachable
from turbokube.bundle.ledger import Ledger
from turbokube.bundle.reader import Reader
from turbokube.bundle.writer import Writer
from turbokube.measure.observer import Observer

_MB = 1e6
_TICK_S = 0.1
_SPACES_AT_ONCE = 4  # turbokube_concurrency


class Watching:
    """Memory, lags and speed, looked at ten times a second as the agent does."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self.lags: list[float] = []
        self.behind: list[float] = []

    async def run(self) -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(_TICK_S)
            self.lags.append(time.monotonic() - before - _TICK_S)
            self.behind.append(self._observer.lag)
            self._observer.lag = 0.0


async def generate(observer: Observer, ledger: Ledger, deployments: int) -> None:
    """What the load keeps: an entry for each deployment, and who waits for its pods."""
    gate = asyncio.Semaphore(_SPACES_AT_ONCE)
    names = [server.space_of(number) for number in range(deployments)]
    entries = [ledger.plan("create", "Deployment", *name, server.REPLICAS, stateless=True) for name in names]
    for entry in entries:
        entry.intended = entry.sent = entry.accepted = time.time()
        entry.status = 201

    async def space(own: list[int]) -> None:
        async with gate, asyncio.TaskGroup() as group:
            for number in own:
                group.create_task(ready(number))

    async def ready(number: int) -> None:
        entries[number].ready = await observer.pods_run(*names[number], server.REPLICAS)
        ledger.save(entries[number])

    every = range(deployments)
    async with asyncio.TaskGroup() as group:
        for first in range(0, deployments, server.DEPLOYMENTS):
            group.create_task(space(list(every[first : first + server.DEPLOYMENTS])))


async def measure(port: int, pods: int, folder: Path) -> dict[str, float]:
    """Take the watch in, and tell what it took."""
    assert session  # imported for its weight
    base = procfs.memory().resident
    writer = Writer(folder)
    transport = await connected(port)
    observer, ledger = Observer(transport, writer, "turbokube.io/run=observer"), Ledger(writer)
    watching = Watching(observer)
    deployments = -(-pods // server.REPLICAS)
    load = asyncio.create_task(generate(observer, ledger, deployments))
    await asyncio.sleep(2.0)
    sampler = asyncio.create_task(watching.run())
    usage, began = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    following = asyncio.create_task(observer.run())
    while not load.done() and not following.done():
        await asyncio.wait((load, following), timeout=5.0, return_when=asyncio.FIRST_COMPLETED)
        seen = observer.progress()
        rss = procfs.memory().resident / _MB
        print(f"{time.monotonic() - began:6.1f} s: {seen.running:,} of {pods:,} run, {rss:.0f} MB", file=sys.stderr)
    took, used = time.monotonic() - began, resource.getrusage(resource.RUSAGE_SELF)
    held = procfs.memory().resident
    for task in (following, sampler):
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    await transport.close()
    await asyncio.to_thread(writer.close, finish=True)
    with Reader(folder) as reader:
        written = reader.query("SELECT count(*) FROM pods WHERE running_seen IS NOT NULL AND node IS NOT NULL")[0][0]
    assert written == pods, f"{written} of {pods} pods are in the bundle"
    count = pods * server.STEPS
    cpu = used.ru_utime + used.ru_stime - usage.ru_utime - usage.ru_stime
    return {
        "events per second": count / took,
        "CPU per event, µs": cpu / count * 1e6,
        "memory of an agent without a run, MB": base / _MB,
        "memory at the end, MB": held / _MB,
        "memory at most, MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / _MB,
        "lag of the loop, p99, s": _p99(watching.lags),
        "lag of the observer, p99, s": _p99(watching.behind),
        "bundle, MB": (folder / "bundle.sqlite").stat().st_size / _MB,
    }


async def connected(port: int) -> session.Http1:
    """A transport as the session has it, once the server answers."""
    transport = session.Http1(Credential("", verify=False), [f"https://127.0.0.1:{port}"], size=2)
    while True:
        try:
            await transport.request("GET", "/version")
        except Unreachable:
            await asyncio.sleep(0.1)
        else:
            return transport


def _p99(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pods", type=int, default=300_000)
    parser.add_argument("--rate", type=float, default=0.0, help="events per second; 0: as fast as they are read")
    parser.add_argument("--folder", type=Path, help="where the bundle is written; default: a temporary folder")
    options = parser.parse_args()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        sending = multiprocessing.get_context("spawn").Process(
            target=server.serve, args=(port, options.pods, options.rate, folder), daemon=True
        )
        sending.start()
        try:
            found = uvloop.run(measure(port, options.pods, folder / "bundle"))
        finally:
            sending.terminate()
    for what, value in found.items():
        print(f"{what}: {value:,.4g}" if value < 1000 else f"{what}: {value:,.0f}")


if __name__ == "__main__":
    main()
