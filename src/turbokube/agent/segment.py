"""A load generator that has a segment of a phase: `python -m turbokube.agent.segment`, a pod of an Indexed Job.

It is told what it is in a file of a Secret, and its number in the environment. It fires its namespaces' load and
watches their pods, in a bundle of its own that is asked for when it has ended. /readyz is good when it has seen what is
there; it begins when someone who knows the Secret's word says when.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from pathlib import Path

import msgspec

from turbokube import disk
from turbokube.bundle.writer import FILE
from turbokube.profile.phases import Create, Shape
from turbokube.workload import job, pods

from .session import Session
from .spec import Begin, Said, Told

log = logging.getLogger("turbokube.segment")
_LINGER_S = 5.0  # after its bundle was fetched
_CHUNK = 1 << 20
_PATIENCE_S = 10.0  # for a request's head


def cut(phase: Create, number: int, segments: int) -> Create:
    """Segment `number` of a phase: its namespaces, and its share of the rate and of what is under way at once."""
    low, high = (phase.namespaces * edge // segments for edge in (number, number + 1))
    some, more = (phase.concurrency * edge // segments for edge in (number, number + 1))
    return msgspec.structs.replace(
        phase,
        segment=str(number),
        first_namespace=phase.first_namespace + low,
        namespaces=high - low,
        concurrency=max(1, more - some),
        rate=_share(phase.rate, 1 / segments),
    )


def _share(rate: float | Shape, share: float) -> float | Shape:
    if not isinstance(rate, Shape):
        return rate * share
    if rate.poisson is not None:
        return Shape(poisson=rate.poisson * share)
    if rate.ramp is not None:
        return Shape(ramp=(rate.ramp[0] * share, rate.ramp[1] * share, rate.ramp[2]))
    return Shape(steps=tuple((per_second * share, seconds) for per_second, seconds in rate.steps))


class Segment:
    """One segment: waits, works, and hands its bundle over. It goes on where an earlier process of its pod ended."""

    def __init__(self, told: Told, number: int, work: Path) -> None:
        self._told = told
        self._folder = work / "bundle"
        self._begin_file, self._end_file = work / "begin.json", work / "end.json"
        self._number = number
        self._session: Session | None = None
        self._begin = asyncio.Event()
        self._ended: Said | None = None
        self.over = asyncio.Event()
        with contextlib.suppress(FileNotFoundError):
            self._ended = msgspec.json.decode(self._end_file.read_bytes(), type=Said)

    async def run(self) -> None:
        """Until its bundle has been fetched. Raises what keeps it from working."""
        if self._ended is None:
            await self._work()
        await self.over.wait()

    async def _work(self) -> None:
        spec = msgspec.structs.replace(self._told.spec, segment=str(self._number))
        session = Session(self._folder, spec, self._folder.parent)
        await session.start()
        self._session = session
        if not self._begin_file.exists():
            await self._begin.wait()
        begin = msgspec.json.decode(self._begin_file.read_bytes(), type=Begin)
        await asyncio.sleep(max(0.0, begin.at - time.time()))
        phase = msgspec.structs.replace(
            cut(self._told.phase, self._number, self._told.segments), deadline=begin.deadline
        )
        session.submit([phase])
        while session.working:
            await session.wait(60.0)
        said = self._now(session)
        await session.close(finish=True)
        disk.replace(self._end_file, msgspec.json.encode(said))
        self._ended = said

    @property
    def ready(self) -> bool:
        return self._ended is not None or (self._session is not None and self._session.observer.synced.is_set())

    def said(self) -> Said:
        """How far it is."""
        if self._ended is not None:
            return msgspec.structs.replace(self._ended, now=time.time())
        session = self._session
        if session is None or not session.knows(self._told.phase.name):
            return Said(state="begun" if self._begin_file.exists() else "waiting", now=time.time())
        return msgspec.structs.replace(self._now(session), state="running")  # until its bundle is whole

    def _now(self, session: Session) -> Said:
        one = session.progress(self._told.phase.name)
        return Said(
            state=one.state,
            note=session.failure or one.note,
            now=time.time(),
            created=one.created,
            scheduled=one.scheduled,
            running=one.running,
        )

    def told(self, path: str, body: bytes) -> bool:
        """What who knows the word says: begin, or stop."""
        what, _, word = path.removeprefix("/").partition("/")
        if word != self._told.word or what not in ("begin", "stop"):
            return False
        if what == "begin":
            msgspec.json.decode(body, type=Begin)
            if not self._begin_file.exists():
                disk.replace(self._begin_file, body)
            self._begin.set()
        elif self._session is not None:
            self._session.stop_phase(str(msgspec.json.decode(body)["why"]))
        return True

    @property
    def bundle(self) -> Path | None:
        """The bundle's file, once it is whole."""
        return self._folder / FILE if self._ended is not None else None


async def answer(segment: Segment, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One request."""
    try:
        async with asyncio.timeout(_PATIENCE_S):
            head = (await reader.readuntil(b"\r\n\r\n")).decode(errors="replace")
            fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
            body = await reader.readexactly(int(fields.get("content-length", 0)))
        method, path = head.split(" ", 2)[:2]
        if method == "GET" and path == "/bundle" and segment.bundle is not None:
            await _send_file(writer, segment.bundle)
            asyncio.get_running_loop().call_later(_LINGER_S, segment.over.set)
            return
        status, text = _reply(segment, method, path, body)
        writer.write(b"HTTP/1.1 %b\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (status, len(text), text))
        await writer.drain()
    except (ConnectionError, TimeoutError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        pass  # the reader went away, or spoke no HTTP
    finally:
        writer.close()


def _reply(segment: Segment, method: str, path: str, body: bytes) -> tuple[bytes, bytes]:
    if method == "GET" and path == "/readyz":
        return (b"200 OK", b"ok\n") if segment.ready else (b"503 Service Unavailable", b"not yet\n")
    if method == "GET" and path == "/progress":
        return b"200 OK", msgspec.json.encode(segment.said())
    if method == "POST" and segment.told(path, body):
        return b"200 OK", b"{}"
    return b"404 Not Found", b"see /progress\n"


async def _send_file(writer: asyncio.StreamWriter, file: Path) -> None:
    size = file.stat().st_size
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n" % size)
    writer.write(b"Connection: close\r\n\r\n")
    with file.open("rb") as source:
        while chunk := source.read(_CHUNK):
            writer.write(chunk)
            await writer.drain()


async def serve(told: Told, number: int, work: Path, host: str, port: int) -> None:
    """Have a segment until its bundle was fetched, or until SIGTERM."""
    segment = Segment(told, number, work)
    loop = asyncio.get_running_loop()
    for one in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(one, segment.over.set)
    server = await asyncio.start_server(lambda reader, writer: answer(segment, reader, writer), host, port)
    running = asyncio.create_task(segment.run())
    over = asyncio.create_task(segment.over.wait())
    await asyncio.wait({running, over}, return_when=asyncio.FIRST_COMPLETED)
    running.cancel()
    over.cancel()
    server.close()
    with contextlib.suppress(asyncio.CancelledError):
        await running


def main(folder: Path = Path(pods.FOLDER), work: Path = Path(job.WORK), port: int = pods.PORT) -> None:
    """Run until the bundle was fetched."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    told = msgspec.json.decode((folder / job.TOLD).read_bytes(), type=Told)
    try:
        asyncio.run(serve(told, int(os.environ[job.ORDINAL]), work, "0.0.0.0", port))
    except Exception as error:
        log.error("%s: %s", type(error).__name__, error)
        sys.exit(1)


if __name__ == "__main__":
    main()
