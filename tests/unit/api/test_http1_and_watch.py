"""The transport and the watch against a server of our own on loopback, answer by answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from turbokube.api import http1
from turbokube.api.credentials import Credential
from turbokube.api.http1 import Http1
from turbokube.api.transport import ApiError, Unreachable
from turbokube.api.watch import ListWatch


class Meta(msgspec.Struct):
    name: str


class Thing(msgspec.Struct):
    metadata: Meta


def ok(body: bytes, status: bytes = b"200 OK", extra: bytes = b"") -> bytes:
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n%b\r\n%b" % (status, len(body), extra, body)


def chunked(*lines: bytes) -> bytes:
    parts = b"".join(b"%x\r\n%b\n\r\n" % (len(line) + 1, line) for line in lines)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + parts + b"0\r\n\r\n"


def thing(kind: bytes, name: bytes, version: int) -> bytes:
    return b'{"type":"%b","object":{"kind":"T","metadata":{"name":"%b","resourceVersion":"%d"}}}' % (
        kind,
        name,
        version,
    )


def talk(answers: list[list[bytes]], story: Callable[[Http1], Awaitable[None]], pace: float = 0.0) -> list[str]:
    """Serve these answers in turn, each in its pieces; an empty one closes. Returns the paths asked for."""
    asked: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                asked.append(head.split()[1].decode())
                pieces = answers.pop(0) if answers else []
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0.01)
                if not pieces:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def run() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        transport = Http1(Credential(server=url), [url], size=2, pace=pace)
        try:
            async with asyncio.timeout(10):
                await story(transport)
        finally:
            await transport.close()
            server.close()

    asyncio.run(run())
    return asked


@pytest.mark.parametrize(
    "pieces",
    [
        [ok(b'{"a":1}')],
        [ok(b'{"a":1}')[:10], ok(b'{"a":1}')[10:]],
        [ok(b'{"a":1}')[:-3], ok(b'{"a":1}')[-3:]],
        [chunked(b'{"a":1}')],
    ],
)
def test_an_answer_is_the_same_however_it_arrives(pieces):
    async def story(transport: Http1) -> None:
        for _ in range(2):
            answer = await transport.request("GET", "/x")
            assert (answer.status, answer.body.strip()) == (200, b'{"a":1}')
        assert len(transport.connections) == 1

    talk([list(pieces), list(pieces)], story)


def test_a_connection_that_the_server_will_close_is_not_used_again():
    async def story(transport: Http1) -> None:
        await transport.request("GET", "/x")
        await asyncio.sleep(0.05)
        assert not transport.connections

    talk([[ok(b"{}", extra=b"Connection: close\r\n")]], story)


def test_a_refusal_has_the_servers_words_and_its_wish_to_be_left_alone():
    async def story(transport: Http1) -> None:
        answer = await transport.request("GET", "/x")
        with pytest.raises(ApiError, match="429 TooMany: later") as caught:
            answer.checked()
        assert caught.value.retry_after == 3.0

    body = b'{"reason":"TooMany","message":"later"}'
    talk([[ok(body, b"429 Too Many Requests", b"Retry-After: 3\r\n")]], story)


def test_what_met_a_closed_connection_is_sent_again_unless_a_post():
    async def story(transport: Http1) -> None:
        await transport.request("GET", "/1")
        assert (await transport.request("PUT", "/2", b"{}")).ok
        with pytest.raises(Unreachable):
            await transport.request("POST", "/3", b"{}")

    assert talk([[ok(b"{}")], [], [ok(b"{}")], []], story) == ["/1", "/2", "/2", "/3"]


def test_idle_connections_are_closed_but_one(monkeypatch):
    monkeypatch.setattr(http1, "_IDLE", 0.3)

    async def story(transport: Http1) -> None:
        await asyncio.gather(transport.request("GET", "/1"), transport.request("GET", "/2"))
        assert len(transport.connections) == 2
        await asyncio.sleep(1.6)
        assert len(transport.connections) == 1
        assert (await transport.request("GET", "/3")).ok

    talk([[ok(b"{}")], [ok(b"{}")], [ok(b"{}")]], story)


def test_what_comes_within_a_streams_pace_is_read_together():
    moments: list[float] = []

    async def story(transport: Http1) -> None:
        async for _ in transport.stream("/x"):
            moments.append(transport.loop.time())

    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    talk([[head, *[b"2\r\n1\n\r\n"] * 4, b"0\r\n\r\n"]], story, pace=0.3)
    assert len(moments) == 4
    assert moments[1] - moments[0] > 0.2 > moments[3] - moments[1]


def watch(
    answers: list[list[bytes]], count: int, wanted: Callable[[bytes], bool] | None = None
) -> tuple[list[tuple[str, str]], list[str]]:
    seen: list[tuple[str, str]] = []

    async def story(transport: Http1) -> None:
        async for event in ListWatch(transport, "/things", Thing, wanted=wanted).events():
            seen.append((event.type, event.object.metadata.name if event.object else ""))
            if len(seen) == count:
                return

    return seen, talk(answers, story)


LIST = ok(b'{"metadata":{"resourceVersion":"5"},"items":[{"metadata":{"name":"a"}}]}')


def test_a_watch_resumes_where_it_ended_bookmarks_included():
    events = [thing(b"ADDED", b"b", 7), b'{"type":"BOOKMARK","object":{"kind":"T","metadata":{"resourceVersion":"9"}}}']
    seen, asked = watch([[LIST], [chunked(*events)], [chunked(thing(b"DELETED", b"a", 11))]], 4)
    assert seen == [("ADDED", "a"), ("SYNCED", ""), ("ADDED", "b"), ("DELETED", "a")]
    assert ["resourceVersion=5" in asked[1], "resourceVersion=9" in asked[2]] == [True, True]


def test_what_is_not_wanted_is_passed_over_but_not_watched_again():
    events = [thing(b"ADDED", b"b", 7), b'{"type":"ADDED","object":not even JSON,"resourceVersion":"9"}']
    answers = [[LIST], [chunked(*events)], [chunked(thing(b"ADDED", b"c", 11))]]
    seen, asked = watch(answers, 4, lambda line: b"JSON" not in line)
    assert [name for _, name in seen] == ["a", "", "b", "c"]
    assert "resourceVersion=9" in asked[2]


def test_a_version_that_is_forgotten_leads_to_a_new_list():
    gone = chunked(b'{"type":"ERROR","object":{"kind":"Status","code":410,"message":"too old"}}')
    seen, asked = watch([[LIST], [gone], [LIST]], 4)
    assert seen == [("ADDED", "a"), ("SYNCED", "")] * 2
    assert "watch" not in asked[2]


def test_a_restarted_servers_403_is_waited_out_but_the_first_one_is_an_answer():
    forbidden = ok(b'{"reason":"Forbidden","message":"not yet"}', b"403 Forbidden")
    seen, _ = watch([[LIST], [forbidden], [chunked(thing(b"ADDED", b"b", 7))]], 3)
    assert seen[-1] == ("ADDED", "b")
    with pytest.raises(ApiError, match="403 Forbidden"):
        watch([[forbidden]], 1)
