"""HTTP/2 over TLS: the transport of a client with a connection of its own, its watches multiplexed on it.

Made to be had ten thousand times in one process: own framing, no header table, no Task and no generator per watch, one
read buffer and one clock for all. What a connection costs is TLS: see bench/http2.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import ssl
import zlib
from collections.abc import AsyncIterator, Sequence
from urllib.parse import urlsplit

from . import hpack
from .connection import Connection, Listener, Stream, reason
from .credentials import Credential
from .lines import Lines
from .transport import JSON, Response, Unreachable

__all__ = ["Http2", "Listener", "Stream"]

_CONNECT_TIMEOUT = 10.0  # seconds
_SWEEP = 5  # seconds between two looks for servers that are silent
_PATH = b"\x04"  # :path, its value to follow
_GZIP = b"\x1f\x8b"  # nothing else that an API server says begins so


class Http2:
    """One connection to one of a target's API servers, made when it is needed and again when it was lost.

    `servers[index % n]` is tried first. More connections than one are open only while the server is taking leave of the
    last, or where one has as many streams as the server allows. `gate` is held while one is being made, so that those
    who share it do not all shake hands at once.
    """

    __slots__ = ("_closed", "_context", "_credential", "_gate", "_headers", "_index", "_servers", "clock",
                 "connections", "loop")  # fmt: skip

    def __init__(
        self,
        credential: Credential,
        servers: Sequence[str],
        *,
        user_agent: str = "turbokube",
        index: int = 0,
        gate: asyncio.Semaphore | None = None,
    ) -> None:
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.clock = _clock(self.loop)
        self.connections: list[Connection] = []
        self._credential = credential
        self._servers = servers
        self._index = index
        self._gate = gate
        self._headers = _headers(urlsplit(servers[0]).netloc, user_agent, credential.token or "")
        # a context costs tens of kilobytes, so that identities by file share one
        lent = bool(credential.pem_file)
        self._context = _context(Credential("", credential.ca, verify=credential.verify) if lent else credential, lent)
        self._closed = False

    async def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        content_type: str = JSON,
        timeout: float = 30.0,
        accept: str = JSON,
    ) -> Response:
        """See Transport. What the server has not acted on is sent once more; what it may have, unless a POST."""
        block = self._headers.block(method, path, accept, content_type if body else "", len(body))
        deadline = self.loop.time() + timeout
        for last in (False, True):
            call = _Call(self.loop.create_future(), deadline)
            stream = call.stream = self._start(block, body, call)
            self.clock.calls[call] = self
            try:
                return await call.answer
            except Unreachable:
                if last or not stream.again or (stream.sent and method == "POST"):
                    raise
            except asyncio.CancelledError:
                self.cancel(stream)
                raise
            finally:
                del self.clock.calls[call]
        raise AssertionError("not reached")

    def open(self, path: str, accept: str, listener: Listener) -> Stream:
        """A GET that stays open. The listener hears all that comes of it, failures too, and not before this returns."""
        return self._start(self._headers.block("GET", path, accept, "", 0), b"", listener)

    def cancel(self, stream: Stream) -> None:
        """End a stream, and hear no more of it."""
        if stream.connection is not None:
            stream.connection.cancel(stream)

    async def stream(self, path: str, accept: str = JSON) -> AsyncIterator[bytes]:
        """See Transport. Yields complete lines without their newline."""
        reader = Lines()
        stream = self.open(path, accept, reader)
        stream.held = True
        try:
            while (lines := await reader.lines()) is not None:
                if stream.connection is not None:
                    stream.connection.give_room(stream)
                for line in lines:
                    yield line
            reader.check(stream.sent)
        finally:
            self.cancel(stream)

    async def close(self) -> None:
        """Close every connection. Requests under way end as Unreachable, listeners hear nothing more."""
        self._closed = True
        for connection in list(self.connections):
            for stream in list(connection.streams.values()):
                if not isinstance(stream.listener, _Call | Lines):
                    connection.cancel(stream)
            connection.lose("closed")
        await asyncio.sleep(0)

    def _start(self, block: bytes, body: bytes, listener: Listener) -> Stream:
        if self._closed:
            stream = Stream(None, listener)
            stream.sent = False
            self.loop.call_soon(listener.ended, "closed")
            return stream
        for connection in self.connections:
            if connection.has_room():
                return connection.start(block, body, listener)
        self.connections.append(Connection(self))
        return self.connections[-1].start(block, body, listener)

    # what a connection asks

    async def connect(self) -> ssl.SSLSocket:
        """See connection.Owner. Servers that do not answer are passed over."""
        async with self._gate or contextlib.nullcontext():
            last = "no server"
            for offset in range(len(self._servers)):
                server = urlsplit(self._servers[(self._index + offset) % len(self._servers)])
                try:
                    async with asyncio.timeout(_CONNECT_TIMEOUT):
                        return await self._connect(server.hostname or "", server.port or 443)
                except ssl.SSLCertVerificationError as error:
                    last = f"{server.netloc}: {error.verify_message}"
                except TimeoutError:
                    last = f"{server.netloc}: no connection in time"
                except OSError as error:
                    last = f"{server.netloc}: {reason(error)}"
            raise Unreachable(last, sent=False)

    def up(self, connection: Connection) -> None:
        self.clock.connections[connection] = self

    def lost(self, connection: Connection) -> None:
        if connection in self.connections:
            self.connections.remove(connection)
        self.clock.connections.pop(connection, None)

    async def _connect(self, host: str, port: int) -> ssl.SSLSocket:
        plain = await self._dial(host, port)
        try:
            if pem := self._credential.pem_file:  # no await from here to wrap_socket: the context is lent
                _load(self._context, pem)
            # a socket and not a pair of memory BIOs: those keep the size of the largest message that ever passed
            secure = self._context.wrap_socket(plain, server_hostname=host, do_handshake_on_connect=False)
        except BaseException:
            plain.close()
            raise
        try:
            await self._handshake(secure)
        except BaseException:
            secure.close()
            raise
        return secure

    async def _dial(self, host: str, port: int) -> socket.socket:
        """A socket to the first of a host's addresses that takes it."""
        error = OSError(f"no address of {host}")
        for family, kind, protocol, _, address in await self.loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            plain = socket.socket(family, kind, protocol)
            try:
                plain.setblocking(False)
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                await self.loop.sock_connect(plain, address)
            except OSError as refusal:
                plain.close()
                error = refusal
            except BaseException:
                plain.close()
                raise
            else:
                return plain
        raise error

    async def _handshake(self, secure: ssl.SSLSocket) -> None:
        while True:
            try:
                secure.do_handshake()
                break
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLWantWriteError:
                await asyncio.sleep(0.01)
                continue
            readable = self.loop.create_future()
            self.loop.add_reader(secure, _settle, readable)
            try:
                await readable
            finally:
                self.loop.remove_reader(secure)
        if secure.selected_alpn_protocol() != "h2":
            raise OSError("the server speaks no HTTP/2")


class _Call:
    """The listener of a request: it makes one answer of what it hears."""

    __slots__ = ("_parts", "_retry_after", "_status", "answer", "deadline", "stream")

    def __init__(self, answer: asyncio.Future[Response], deadline: float) -> None:
        self.answer = answer
        self.deadline = deadline  # loop time
        self.stream: Stream
        self._status = 0
        self._retry_after = 0.0
        self._parts: list[bytes] = []

    def head(self, status: int, retry_after: float) -> None:
        self._status, self._retry_after = status, retry_after

    def data(self, chunk: bytes) -> None:
        self._parts.append(chunk)

    def ended(self, why: str) -> None:
        if self.answer.done():
            return
        if why or not self._status:
            self.answer.set_exception(Unreachable(why or "an end without an answer", sent=self.stream.sent))
            return
        body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        try:
            body = zlib.decompress(body, wbits=31) if body.startswith(_GZIP) else body
        except zlib.error as error:
            self.answer.set_exception(Unreachable(f"an answer that is no gzip: {error}", sent=True))
            return
        self.answer.set_result(Response(self._status, body, self._retry_after))


class _Clock:
    """What time decides, for all connections of a loop: overdue answers, and servers that are silent."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.calls: dict[_Call, Http2] = {}
        self.connections: dict[Connection, Http2] = {}
        self._loop = loop
        self._ticks = 0
        self._tick()

    def _tick(self) -> None:
        """Once a second is exact enough, and costs nothing per request; once in five for silence."""
        now = self._loop.time()
        for call, owner in list(self.calls.items()):
            if call.deadline < now:
                connection = call.stream.connection
                call.stream.sent = connection is not None and connection.is_up
                owner.cancel(call.stream)
                call.ended("no answer in time" if call.stream.sent else "no connection in time")
        self._ticks += 1
        if self._ticks % _SWEEP == 0:
            for one, owner in list(self.connections.items()):
                one.check(now, spare=len(owner.connections) > 1)
        self._loop.call_later(1.0, self._tick)


class _Headers:
    """The header blocks of clients that are alike, ready but for what differs from one request to the next."""

    def __init__(self, authority: str, user_agent: str, token: str) -> None:
        self._begin = hpack.field(b":authority", authority.encode())
        self._agent = hpack.field(b"user-agent", user_agent.encode())
        self._end = hpack.field(b"accept-encoding", b"gzip")  # as Go's client asks
        if token:
            self._end += hpack.field(b"authorization", f"Bearer {token}".encode(), secret=True)
        self._ready: dict[tuple[str, str, str], tuple[bytes, bytes]] = {}

    def block(self, method: str, path: str, accept: str, content_type: str, length: int) -> bytes:
        """A request's headers; those of a body where its `length` is not 0."""
        ready = self._ready.get((method, accept, content_type)) or self._make(method, accept, content_type)
        block = ready[0] + hpack.string(path.encode()) + ready[1]
        return block + _content_length(length) if length else block

    def _make(self, method: str, accept: str, content_type: str) -> tuple[bytes, bytes]:
        before = self._begin + hpack.field(b":method", method.encode()) + _PATH
        after = hpack.field(b":scheme", b"https") + hpack.field(b"accept", accept.encode())
        if content_type:
            after += hpack.field(b"content-type", content_type.encode())
        self._ready[method, accept, content_type] = before, after + self._agent + self._end
        return self._ready[method, accept, content_type]


@functools.lru_cache(maxsize=1024)  # leases and heartbeats are of few lengths
def _content_length(length: int) -> bytes:
    return hpack.field(b"content-length", b"%d" % length)


_headers = functools.lru_cache(maxsize=64)(_Headers)
_clock = functools.lru_cache(maxsize=1)(_Clock)


@functools.lru_cache(maxsize=64)
def _context(credential: Credential, lent: bool) -> ssl.SSLContext:
    """A context of this credential; one that is `lent` has the certificate of whoever connected last."""
    context = credential.ssl_context()
    context.set_alpn_protocols(["h2"])
    return context


def _load(context: ssl.SSLContext, pem_file: str) -> None:
    try:
        context.load_cert_chain(pem_file)
    except OSError as error:  # not the server's fault: the next one would do no better
        raise Unreachable(f"credential {pem_file}: {reason(error)}", sent=False) from None


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
