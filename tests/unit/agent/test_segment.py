"""Segments of a phase: together they are the phase, whatever their number."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from turbokube.agent import segment
from turbokube.agent.segment import Segment, cut
from turbokube.agent.spec import Begin, RunSpec, Said, Told
from turbokube.api.target import Target
from turbokube.profile.phases import Create, ObjectSet, Shape

PHASE = Create(
    run="r", name="create", namespaces=10, first_namespace=5, concurrency=8, rate=100.0, objects=(ObjectSet(),)
)


@pytest.mark.parametrize("segments", [1, 2, 3, 7, 10])
def test_segments_have_each_namespace_once_and_the_whole_rate(segments):
    parts = [cut(PHASE, number, segments) for number in range(segments)]
    assert [index for part in parts for index in part.indices] == list(PHASE.indices)
    assert max(part.namespaces for part in parts) - min(part.namespaces for part in parts) <= 1
    assert sum(part.rate for part in parts) == pytest.approx(100.0)
    assert [part.segment for part in parts] == [str(number) for number in range(segments)]
    assert sum(part.concurrency for part in parts) == max(8, segments)


def test_shapes_of_rates_are_shared_too():
    def rate(shape):
        return cut(msgspec.structs.replace(PHASE, rate=shape), 0, 4).rate

    assert rate(Shape(poisson=8.0)) == Shape(poisson=2.0)
    assert rate(Shape(ramp=(0.0, 40.0, 60.0))) == Shape(ramp=(0.0, 10.0, 60.0))
    assert rate(Shape(steps=((4.0, 10.0), (8.0, 20.0)))) == Shape(steps=((1.0, 10.0), (2.0, 20.0)))
    assert rate(0.0) == 0.0


def a_segment(work: Path) -> Segment:
    return Segment(Told(spec=RunSpec(run="r", target=Target(name="t")), phase=PHASE, segments=2, word="w"), 1, work)


def test_only_who_knows_the_word_makes_it_begin(tmp_path):
    one = a_segment(tmp_path)
    begin = msgspec.json.encode(Begin(at=1.0, deadline=2.0))
    assert not one.told("/begin/x", begin)
    assert not one.told("/else/w", begin)
    assert not (tmp_path / "begin.json").exists()
    assert one.told("/begin/w", begin)
    assert one.told("/begin/w", msgspec.json.encode(Begin(at=9.0, deadline=9.0)))  # once is enough
    assert (tmp_path / "begin.json").read_bytes() == begin


def test_one_that_has_ended_says_so_again_after_it_was_started_anew(tmp_path):
    assert a_segment(tmp_path).said().state == "waiting"
    (tmp_path / "end.json").write_bytes(msgspec.json.encode(Said(state="done", running=7)))
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "bundle.sqlite").write_bytes(b"bytes" * 1000)

    async def ask() -> list[bytes]:
        one = a_segment(tmp_path)
        server = await asyncio.start_server(lambda reader, writer: segment.answer(one, reader, writer), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        found = []
        for head in ("GET /readyz", "GET /progress", "POST /begin/x", "GET /bundle"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(f"{head} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            found.append(await reader.read())
            writer.close()
        server.close()
        return found

    ready, progress, refused, bundle = asyncio.run(ask())
    assert ready.startswith(b"HTTP/1.1 200")
    said = msgspec.json.decode(progress.partition(b"\r\n\r\n")[2], type=Said)
    assert (said.state, said.running) == ("done", 7)
    assert refused.startswith(b"HTTP/1.1 404")
    assert bundle.partition(b"\r\n\r\n")[2] == b"bytes" * 1000
