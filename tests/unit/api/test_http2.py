"""The HTTP/2 transport against a server of our own on loopback: the h2 package's, and frames that it would not send."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import ssl
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings
import hpack
import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from turbokube.api import connection as connection_module
from turbokube.api import http2
from turbokube.api.credentials import Credential
from turbokube.api.http2 import Http2
from turbokube.api.transport import PROTOBUF, ApiError, Unreachable

SETTINGS = h2.settings.SettingCodes


class Authority:
    """A CA that lives for these tests."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._sign("test", self.key)

    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def issue(self, folder: Path, name: str) -> Path:
        """Certificate and key in one file."""
        key = ec.generate_private_key(ec.SECP256R1())
        text = self._sign(name, key).public_bytes(serialization.Encoding.PEM) + key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path = folder / f"{name}.pem"
        path.write_bytes(text)
        return path

    def _sign(self, name: str, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        ca = name == "test"
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
            )
            .sign(self.key, hashes.SHA256())
        )


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority()


@dataclass
class Request:
    """What the server was asked."""

    peer: Peer
    stream: int
    headers: dict[str, str]
    body: bytes = b""

    @property
    def path(self) -> str:
        return self.headers[":path"]

    def answer(self, status: int = 200, body: bytes = b"{}", *, end: bool = True, **headers: str) -> None:
        self.peer.h2.send_headers(self.stream, [(":status", str(status)), *headers.items()])
        self.peer.send(self.stream, body, end=end)

    def raw(self, *frames: bytes) -> None:
        """Frames as they are, each in a write of its own."""
        for frame in frames:
            self.peer.writer.write(frame)


@dataclass
class Peer:
    """The server's end of one connection."""

    server: Server
    writer: asyncio.StreamWriter
    h2: h2.connection.H2Connection
    pending: dict[int, tuple[bytes, bool]] = field(default_factory=dict)
    requests: dict[int, Request] = field(default_factory=dict)

    def send(self, stream: int, data: bytes, *, end: bool = False) -> None:
        """As much as flow control allows; the rest when it allows more."""
        size = min(len(data), self.h2.local_flow_control_window(stream))
        for at in range(0, size, 16384):
            self.h2.send_data(stream, data[at : min(at + 16384, size)])
        self.server.sent += size
        if size < len(data):
            self.pending[stream] = data[size:], end
        elif end:
            self.h2.end_stream(stream)
        self.flush()

    def flush(self) -> None:
        self.writer.write(self.h2.data_to_send())

    def take(self, event: h2.events.Event) -> None:
        self.server.events.append(event)
        if isinstance(event, h2.events.RequestReceived):
            headers = {name.decode(): value.decode() for name, value in event.headers}
            self.requests[event.stream_id] = Request(self, event.stream_id, headers)
        elif isinstance(event, h2.events.DataReceived):
            self.requests[event.stream_id].body += event.data
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            request = self.requests[event.stream_id]
            self.server.requests.append(request)
            self.server.handle(request)
        elif isinstance(event, h2.events.WindowUpdated):
            for stream, (data, end) in list(self.pending.items()):
                del self.pending[stream]
                self.send(stream, data, end=end)


class Server:
    """Hands every request to `handle`, and keeps what happened."""

    def __init__(self, handle: Callable[[Request], None], settings: dict[SETTINGS, int]) -> None:
        self.handle = handle
        self.settings = settings
        self.requests: list[Request] = []
        self.events: list[h2.events.Event] = []
        self.names: list[str] = []  # of the client certificates, one per connection
        self.peers: list[Peer] = []
        self.sent = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        subject = (writer.get_extra_info("peercert") or {}).get("subject", ())
        self.names.append(subject[0][0][1] if subject else "")
        config = h2.config.H2Configuration(client_side=False)
        peer = Peer(self, writer, h2.connection.H2Connection(config))
        self.peers.append(peer)
        peer.h2.local_settings = h2.settings.Settings(client=False, initial_values=self.settings)
        peer.h2.initiate_connection()
        peer.flush()
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            while data := await reader.read(65536):
                for event in peer.h2.receive_data(data):
                    peer.take(event)
                peer.flush()
        writer.close()

    def of(self, kind: type[h2.events.Event]) -> list[h2.events.Event]:
        return [event for event in self.events if isinstance(event, kind)]


class Ear:
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        self.status = 0
        self.retry_after = 0.0
        self.heard = b""
        self.why: str | None = None

    def head(self, status: int, retry_after: float) -> None:
        self.status, self.retry_after = status, retry_after

    def data(self, chunk: bytes) -> None:
        self.heard += chunk

    def ended(self, why: str) -> None:
        self.why = why

    async def until(self, true: Callable[[], bool]) -> None:
        while not true():
            await asyncio.sleep(0.005)


@pytest.fixture
def talk(authority, tmp_path):
    """Serve with `handle`, live through `story(transport, server)`; returns the server."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=authority.pem())
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_cert_chain(authority.issue(tmp_path, "server"))
    context.set_alpn_protocols(["h2"])

    def run(
        handle: Callable[[Request], None],
        story: Callable[[Http2, Server], Awaitable[None]],
        *,
        settings: dict[SETTINGS, int] | None = None,
        before: tuple[str, ...] = (),
        runner: Callable[..., None] = uvloop.run,
        **options: object,
    ) -> Server:
        server = Server(handle, settings or {})

        async def main() -> None:
            listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=context)
            url = f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
            transport = Http2(Credential(url, authority.pem()), [*before, url], user_agent="test/1", **options)
            try:
                async with asyncio.timeout(20):
                    await story(transport, server)
            finally:
                await transport.close()
                listening.close()

        runner(main())
        return server

    return run


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def echo(request: Request) -> None:
    request.answer(200, request.body or b"{}")


# requests and their answers


@pytest.mark.parametrize("runner", [uvloop.run, asyncio.run])
def test_a_request_says_what_client_go_would(talk, runner):
    async def story(transport, server):
        answer = await transport.request("PUT", "/things/1?x=%20", b'{"a":1}', "application/json", accept=PROTOBUF)
        assert (answer.status, answer.body) == (200, b'{"a":1}')
        await transport.request("GET", "/things")
        assert len(transport.connections) == 1

    server = talk(echo, story, runner=runner)
    put, get = (request.headers for request in server.requests)
    host = put.pop(":authority")
    assert host.startswith("127.0.0.1:")
    assert put == {
        ":method": "PUT",
        ":path": "/things/1?x=%20",
        ":scheme": "https",
        "accept": PROTOBUF,
        "content-type": "application/json",
        "content-length": "7",
        "user-agent": "test/1",
        "accept-encoding": "gzip",
    }
    assert {"content-type", "content-length"}.isdisjoint(get)
    assert get["accept"] == "application/json"


def test_a_token_is_sent_and_never_put_into_a_table(talk, authority):
    def handle(request):
        request.answer(200, request.headers["authorization"].encode())

    async def story(transport, server):
        url = f"https://127.0.0.1:{transport._servers[0].rpartition(':')[2]}"
        other = Http2(Credential(url, authority.pem(), token="s3cret"), [url])
        assert (await other.request("GET", "/")).body == b"Bearer s3cret"
        block = other._headers.block("GET", "/", "*/*", "", 0)
        [kept] = [one for one in hpack.Decoder().decode(block, raw=True) if one[0] == b"authorization"]
        assert isinstance(kept, hpack.NeverIndexedHeaderTuple)
        await other.close()

    talk(handle, story)


HEADERS_200 = hpack.Encoder().encode([(":status", "200"), ("audit-id", "x" * 40)])
HEADERS_429 = hpack.Encoder().encode([(":status", "429"), ("retry-after", "7"), ("audit-id", "y" * 40)])


OTHERS = {
    name: hpack.Encoder().encode([field]) for name, *field in [("103", ":status", "103"), ("end", "grpc-status", "0")]
}
FRAMINGS = {
    "plain": lambda n: [frame(1, 4, n, HEADERS_200), frame(0, 1, n, b"body")],
    "one write": lambda n: [frame(1, 4, n, HEADERS_200) + frame(0, 0, n, b"bo") + frame(0, 1, n, b"dy")],
    "empty end": lambda n: [frame(1, 4, n, HEADERS_200), frame(0, 0, n, b"body"), frame(0, 1, n, b"")],
    "padded": lambda n: [frame(1, 4, n, HEADERS_200), frame(0, 9, n, b"\x05body\0\0\0\0\0")],
    "only padding": lambda n: [
        frame(1, 4, n, HEADERS_200),
        frame(0, 8, n, b"\x03\0\0\0"),
        frame(0, 1, n, b"body"),
    ],
    "padded headers": lambda n: [
        frame(1, 0x2C, n, b"\x02\0\0\0\0\x10" + HEADERS_200 + b"\0\0"),
        frame(0, 1, n, b"body"),
    ],
    "continuation": lambda n: [
        frame(1, 0, n, HEADERS_200[:3]),
        frame(9, 0, n, HEADERS_200[3:7]),
        frame(9, 4, n, HEADERS_200[7:]),
        frame(0, 1, n, b"body"),
    ],
    "bytes": lambda n: [bytes((byte,)) for byte in frame(1, 4, n, HEADERS_200) + frame(0, 1, n, b"body")],
    "interim": lambda n: [
        frame(1, 4, n, OTHERS["103"]),
        frame(1, 4, n, HEADERS_200),
        frame(0, 1, n, b"body"),
    ],
    "trailers": lambda n: [
        frame(1, 4, n, HEADERS_200),
        frame(0, 0, n, b"body"),
        frame(1, 5, n, OTHERS["end"]),
    ],
    "nobody's": lambda n: [
        frame(0xAB, 0, 0, b"a type that nobody knows"),
        frame(0, 1, 4711, b"a stream that nobody knows"),
        frame(1, 4, n, b"\x20" + HEADERS_200),  # a table's size first
        frame(0, 1, n, b"body"),
    ],
}


@pytest.mark.parametrize("frames", FRAMINGS.values(), ids=FRAMINGS)
def test_an_answer_is_the_same_however_it_is_framed(talk, frames):
    async def story(transport, server):
        for _ in range(2):
            answer = await transport.request("GET", "/x")
            assert (answer.status, answer.body) == (200, b"body")
        assert len(server.peers) == 1

    talk(lambda request: request.raw(*frames(request.stream)), story)


@pytest.mark.parametrize("huffman", [True, False])
def test_a_refusal_has_the_servers_words_and_its_wish_to_be_left_alone(talk, huffman):
    def handle(request):
        block = hpack.Encoder().encode([(":status", "429"), ("retry-after", "7"), ("x-id", "z" * 30)], huffman=huffman)
        request.raw(frame(1, 4, request.stream, block))
        request.raw(frame(0, 1, request.stream, b'{"reason":"TooMany","message":"later"}'))

    async def story(transport, server):
        answer = await transport.request("GET", "/x")
        with pytest.raises(ApiError, match="429 TooMany: later") as caught:
            answer.checked()
        assert caught.value.retry_after == 7.0

    talk(handle, story)


def test_a_refusal_in_protobuf_is_read_as_one_in_json(talk):
    body = bytes.fromhex(
        "6b3873000a0c0a02763112065374617475731222120746"
        "61696c7572651a0d6e6f7420666f756e642021212122084e6f74466f756e64309403"
    )

    async def story(transport, server):
        answer = await transport.request("GET", "/x", accept=PROTOBUF)
        with pytest.raises(ApiError, match="404 NotFound: not found !!!"):
            answer.checked()

    talk(lambda request: request.answer(404, body), story)


def test_an_answer_that_was_compressed_is_whole(talk):
    packed = zlib.compress(b"x" * 500_000, wbits=31)

    async def story(transport, server):
        assert (await transport.request("GET", "/x")).body == b"x" * 500_000
        with pytest.raises(Unreachable, match="gzip"):
            await transport.request("GET", "/broken")

    talk(lambda request: request.answer(200, packed if request.path == "/x" else packed[:9], x="y"), story)


def test_flow_control_lets_large_bodies_pass_both_ways(talk):
    async def story(transport, server):
        await transport.request("GET", "/")  # the server's settings are known from here on
        body = bytes(range(256)) * 10_000
        answers = await asyncio.gather(*(transport.request("PUT", f"/{n}", body) for n in range(3)))
        assert all(answer.body == body for answer in answers)

    talk(echo, story, settings={SETTINGS.INITIAL_WINDOW_SIZE: 20_000})


def test_a_body_waits_for_room_and_for_more_of_it_by_a_setting(talk):
    async def story(transport, server):
        await transport.request("GET", "/")
        request = asyncio.ensure_future(transport.request("PUT", "/", b"x" * 5000))
        while len(server.peers[0].requests) < 2:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        assert not request.done()
        server.peers[0].h2.update_settings({SETTINGS.INITIAL_WINDOW_SIZE: 65535})
        server.peers[0].flush()
        assert (await request).body == b"x" * 5000

    talk(echo, story, settings={SETTINGS.INITIAL_WINDOW_SIZE: 0})


def test_an_answer_that_does_not_come_is_given_up(talk):
    async def story(transport, server):
        with pytest.raises(Unreachable, match="no answer in time") as caught:
            await transport.request("GET", "/slow", timeout=0.1)
        assert caught.value.sent
        server.requests[0].raw(*FRAMINGS["plain"](server.requests[0].stream))  # too late
        assert (await transport.request("GET", "/x")).body == b"{}"

    def handle(request):
        if request.path != "/slow":
            request.answer()

    server = talk(handle, story)
    assert [event.error_code for event in server.of(h2.events.StreamReset)] == [h2.errors.ErrorCodes.CANCEL]
    assert len(server.peers) == 1


def test_a_request_that_is_cancelled_is_reset(talk):
    async def story(transport, server):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await transport.request("GET", "/slow")
        while not server.of(h2.events.StreamReset):
            await asyncio.sleep(0.01)
        assert not transport.clock.calls

    talk(lambda request: None, story)


# watches


def test_a_stream_hears_its_head_its_data_and_its_end(talk):
    def handle(request):
        request.answer(200, b"first", end=False)
        asyncio.get_running_loop().call_later(0.05, request.peer.send, request.stream, b"second")
        asyncio.get_running_loop().call_later(0.1, lambda: request.peer.send(request.stream, b"", end=True))

    async def story(transport, server):
        ear = Ear()
        transport.open("/watch", PROTOBUF, ear)
        assert (ear.status, ear.why) == (0, None)
        await ear.until(lambda: ear.why is not None)
        assert (ear.status, ear.heard, ear.why) == (200, b"firstsecond", "")

    talk(handle, story)


def test_lines_of_a_stream_are_whole_and_a_refused_one_raises(talk):
    def handle(request):
        if request.path == "/no":
            request.answer(410, b'{"reason":"Expired","message":"too old"}')
        else:
            request.answer(200, b'{"a":1}\n{"b"', end=False)
            request.peer.send(request.stream, b":2}\n", end=True)

    async def story(transport, server):
        assert [line async for line in transport.stream("/watch")] == [b'{"a":1}', b'{"b":2}']
        with pytest.raises(ApiError, match="410 Expired"):
            [line async for line in transport.stream("/no")]

    talk(handle, story)


def test_a_slow_reader_holds_its_stream_back_and_no_other(talk):
    line = b"x" * 9999 + b"\n"

    def handle(request):
        request.answer(200, b"{}" if request.path == "/x" else line * 2000)

    async def story(transport, server):
        lines = transport.stream("/watch")
        assert await anext(lines) == line[:-1]
        await asyncio.sleep(0.3)
        assert server.sent <= 8 << 20  # what was read, and a window
        assert (await transport.request("GET", "/x")).ok
        assert len([line async for line in lines]) == 1999

    talk(handle, story)


def test_a_watch_may_go_on_beyond_every_window(talk, monkeypatch):
    monkeypatch.setattr(connection_module, "_CONNECTION_WINDOW", 100_000)
    monkeypatch.setattr(connection_module, "_STREAM_WINDOW", 100_000)

    async def story(transport, server):
        ear = Ear()
        transport.open("/watch", "*/*", ear)
        await ear.until(lambda: ear.why is not None)
        assert len(ear.heard) == 6_000_000

    talk(lambda request: request.answer(200, b"x" * 6_000_000), story)


def test_a_stream_that_is_cancelled_hears_nothing_more(talk):
    async def story(transport, server):
        ears = [Ear(), Ear()]
        streams = [transport.open(f"/{n}", "*/*", ear) for n, ear in enumerate(ears)]
        await ears[1].until(lambda: all(ear.status for ear in ears))
        transport.cancel(streams[0])
        transport.cancel(streams[0])
        for request in list(server.requests):
            with contextlib.suppress(h2.exceptions.StreamClosedError):
                request.peer.send(request.stream, b"more")
        await ears[1].until(lambda: ears[1].heard == b"more")
        assert (ears[0].heard, ears[0].why) == (b"", None)
        await transport.close()
        assert ears[1].why is None

    talk(lambda request: request.answer(200, b"", end=False), story)


def test_who_hears_of_an_end_may_cancel_others_and_open_anew(talk):
    class Chief(Ear):
        def ended(self, why):
            self.why = why
            transport.cancel(other)
            self.again = transport.open("/again", "*/*", Ear())

    transport = other = None

    async def story(given, server):
        nonlocal transport, other
        transport, ear, chief = given, Ear(), Chief()
        transport.open("/1", "*/*", chief)
        other = transport.open("/2", "*/*", ear)
        await ear.until(lambda: ear.status == 200)
        server.peers[0].writer.transport.abort()
        await ear.until(lambda: len(server.requests) == 3)
        assert chief.why
        assert ear.why is None

    talk(lambda request: request.answer(200, b"", end=False), story)


# ends of all kinds


def test_goaway_lets_streams_finish_and_sends_the_rest_elsewhere(talk):
    async def story(transport, server):
        ear = Ear()
        transport.open("/watch", "*/*", ear)
        await ear.until(lambda: ear.status == 200)
        post = asyncio.ensure_future(transport.request("POST", "/post", b"{}"))
        await ear.until(lambda: len(server.requests) == 2)
        server.requests[0].raw(frame(7, 0, 0, (1).to_bytes(4, "big") + bytes(4)))  # last stream: the watch
        assert (await post).ok
        assert len(server.peers) == 2
        server.requests[0].peer.send(server.requests[0].stream, b"still here", end=True)
        await ear.until(lambda: ear.why is not None)
        assert (ear.heard, ear.why) == (b"still here", "")
        await ear.until(lambda: len(transport.connections) == 1)

    def handle(request):
        if request.path == "/watch":
            request.answer(200, b"", end=False)
        elif len(request.peer.server.peers) == 2:
            request.answer()

    talk(handle, story)


def test_a_stream_that_the_server_refused_is_sent_again_even_a_post(talk):
    async def story(transport, server):
        assert (await transport.request("POST", "/post", b"{}")).ok

    def handle(request):
        if len(request.peer.server.requests) == 1:
            request.raw(frame(3, 0, request.stream, (7).to_bytes(4, "big")))
        else:
            request.answer()

    assert len(talk(handle, story).requests) == 2


def test_a_stream_that_is_reset_says_why(talk):
    async def story(transport, server):
        ear = Ear()
        transport.open("/watch", "*/*", ear)
        await ear.until(lambda: ear.why is not None)
        assert "INTERNAL_ERROR" in ear.why
        with pytest.raises(Unreachable, match="INTERNAL_ERROR") as caught:
            await transport.request("GET", "/x")
        assert caught.value.sent

    talk(lambda request: request.raw(frame(3, 0, request.stream, (2).to_bytes(4, "big"))), story)


def test_what_met_a_closed_connection_is_sent_again_unless_a_post(talk):
    def handle(request):
        if request.path == "/gone" and len(request.peer.server.peers) % 2:
            request.peer.writer.transport.abort()
        else:
            request.answer()

    async def story(transport, server):
        await transport.request("GET", "/1")
        assert (await transport.request("PUT", "/gone", b"{}")).ok
        await transport.request("GET", "/2")
        server.peers.append(server.peers[-1])  # an odd number again
        with pytest.raises(Unreachable) as caught:
            await transport.request("POST", "/gone", b"{}")
        assert caught.value.sent
        assert (await transport.request("GET", "/3")).ok

    server = talk(handle, story)
    assert [request.path for request in server.requests] == ["/1", "/gone", "/gone", "/2", "/gone", "/3"]


def test_a_server_that_is_away_is_passed_over(talk, unused_port):
    async def story(transport, server):
        assert (await transport.request("GET", "/x")).ok

    talk(echo, story, before=(f"https://127.0.0.1:{unused_port}",))


def test_nobody_there_is_said_by_request_and_watch(authority, unused_port):
    async def main():
        url = f"https://127.0.0.1:{unused_port}"
        transport = Http2(Credential(url, authority.pem()), [url])
        with pytest.raises(Unreachable, match=f"127.0.0.1:{unused_port}: Connection refused") as caught:
            await transport.request("POST", "/x", b"{}")
        assert not caught.value.sent
        ear = Ear()
        transport.open("/watch", "*/*", ear)
        await ear.until(lambda: ear.why is not None)
        assert "refused" in ear.why
        assert not transport.connections
        await transport.close()
        with pytest.raises(Unreachable, match="closed"):
            await transport.request("GET", "/x")

    uvloop.run(main())


@pytest.mark.parametrize(
    ("frames", "why"),
    [
        ([b"\xff" * 40], "larger than allowed"),
        ([frame(1, 4, 1, b"\xbe")], "not HTTP/2: field 62"),
        ([frame(1, 4, 1, b"\x08\x83ab")], "not HTTP/2"),
        ([frame(1, 12, 1, b"\x09\x88")], "padding"),
        ([frame(0, 8, 1, b"")], "padding"),
    ],
)
def test_a_server_that_breaks_the_rules_is_left(talk, frames, why):
    async def story(transport, server):
        ear = Ear()
        transport.open("/watch", "*/*", ear)
        await ear.until(lambda: ear.why is not None)
        assert why in ear.why
        assert not transport.connections

    talk(lambda request: request.raw(*frames), story)


def test_a_listener_that_fails_costs_its_connection_and_is_heard_of(talk):
    class Broken(Ear):
        def data(self, chunk):
            raise RuntimeError("broken")

    async def story(transport, server):
        failures = []
        transport.loop.set_exception_handler(lambda loop, context: failures.append(context["exception"]))
        ear = Broken()
        transport.open("/watch", "*/*", ear)
        await ear.until(lambda: ear.why is not None)
        assert ear.why == "RuntimeError in a listener"
        assert [str(failure) for failure in failures] == ["broken"]
        assert (await transport.request("GET", "/x", timeout=5)).ok

    def handle(request):
        request.answer(200, b"x" if request.path == "/watch" else b"", end=request.path == "/x")

    talk(handle, story)


# keeping it


def test_a_silent_server_is_asked_and_given_up_when_it_does_not_answer(talk, monkeypatch):
    monkeypatch.setattr(connection_module, "_READ_IDLE", 0.1)
    monkeypatch.setattr(connection_module, "_PING_TIMEOUT", 1.5)
    monkeypatch.setattr(http2, "_SWEEP", 1)

    async def story(transport, server):
        ear = Ear()
        transport.open("/watch", "*/*", ear)
        await ear.until(lambda: len(server.of(h2.events.PingReceived)) == 2)
        assert ear.why is None  # it answers, by itself
        server.peers[0].flush = lambda: None
        await ear.until(lambda: ear.why is not None)
        assert ear.why == "no answer to a ping"

    talk(lambda request: request.answer(200, b"", end=False), story)


def test_a_ping_of_the_server_is_answered(talk):
    async def story(transport, server):
        await transport.request("GET", "/x")
        server.peers[0].h2.ping(b"12345678")
        server.peers[0].flush()
        while not server.of(h2.events.PingAckReceived):
            await asyncio.sleep(0.01)

    server = talk(echo, story)
    assert server.of(h2.events.PingAckReceived)[0].ping_data == b"12345678"
    assert server.of(h2.events.SettingsAcknowledged)


def test_more_streams_than_the_server_allows_open_a_second_connection_which_goes_when_idle(talk, monkeypatch):
    monkeypatch.setattr(connection_module, "_READ_IDLE", 0.1)
    monkeypatch.setattr(http2, "_SWEEP", 1)

    async def story(transport, server):
        await transport.request("GET", "/x")  # its settings are known from here on
        ears = [Ear() for _ in range(3)]
        streams = [transport.open(f"/{n}", "*/*", ear) for n, ear in enumerate(ears)]
        await ears[0].until(lambda: all(ear.status == 200 for ear in ears))
        assert [len(connection.streams) for connection in transport.connections] == [2, 1]
        transport.cancel(streams[2])
        await ears[0].until(lambda: len(transport.connections) == 1)
        assert ears[0].why is None

    def handle(request):
        request.answer(200, b"", end=request.path == "/x")

    talk(handle, story, settings={SETTINGS.MAX_CONCURRENT_STREAMS: 2})


def test_a_gate_lets_connections_be_made_one_at_a_time(talk, authority):
    async def story(transport, server):
        gate = asyncio.Semaphore(1)
        others = [Http2(transport._credential, transport._servers, gate=gate) for _ in range(4)]
        await gate.acquire()
        with pytest.raises(Unreachable, match="no connection in time") as caught:
            await others[0].request("GET", "/x", timeout=0.1)
        assert not caught.value.sent
        assert not server.peers
        gate.release()
        assert all(answer.ok for answer in await asyncio.gather(*(one.request("GET", "/x") for one in others)))
        for other in others:
            await other.close()

    talk(echo, story)


# who we are


def test_identities_by_file_share_a_context_and_each_shows_its_own_certificate(talk, authority, tmp_path):
    async def story(transport, server):
        url = transport._servers[0]
        files = [str(authority.issue(tmp_path, name)) for name in ("node-a", "node-b")]
        nodes = [Http2(Credential(url, authority.pem(), pem_file=file), [url]) for file in files]
        assert nodes[0]._context is nodes[1]._context is not transport._context
        for client in (nodes[0], nodes[1], transport):
            await client.request("GET", "/x")
        await nodes[0].request("GET", "/x")
        for node in nodes:
            await node.close()

    assert talk(echo, story).names == ["node-a", "node-b", ""]


def test_a_credential_that_is_not_there_is_named(talk, authority, tmp_path):
    async def story(transport, server):
        url = transport._servers[0]
        node = Http2(Credential(url, authority.pem(), pem_file=f"{tmp_path}/no.pem"), [url])
        with pytest.raises(Unreachable, match=r"no\.pem: No such file"):
            await node.request("GET", "/x")

    talk(echo, story)


def test_a_server_that_nobody_vouches_for_is_not_spoken_to(talk):
    async def story(transport, server):
        url = transport._servers[0]
        other = Http2(Credential(url, Authority().pem()), [url])
        with pytest.raises(Unreachable, match="certificate") as caught:
            await other.request("GET", "/x")
        assert not caught.value.sent

    assert not talk(echo, story).requests


@pytest.fixture
def unused_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
