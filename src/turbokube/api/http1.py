"""Pooled HTTP/1.1 over TLS: the transport of clients that share connections (engine at `lease`, load, observer)."""

from __future__ import annotations

import asyncio
import collections
import socket
import ssl
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import httptools

from .credentials import Credential
from .lines import Lines
from .transport import JSON, Response, Unreachable

_MAX_BUFFERED = 4 * 1024 * 1024  # a stream's unread bytes before its socket is paused; reading them takes 30 ms
_ENOUGH = 256 * 1024  # a stream's unread bytes that are read at once, whatever its pace
_STALE = "connection closed by the server"
_IDLE = (
    30.0  # seconds after which a connection that is not needed is closed; each costs 50 KB here and more in the server
)


class _Connection(asyncio.Protocol):
    """One socket; one request, or one stream, at a time."""

    def __init__(self, pool: Http1) -> None:
        self.pool = pool
        self.transport: asyncio.Transport | None = None
        self.deadline = 0.0  # loop time by which the answer must be there; 0: none awaited
        self.used = False  # it has answered before, so the server may have closed it meanwhile
        self.idle_since = 0.0  # loop time of its return to the pool
        self._parser = httptools.HttpResponseParser(self)
        self._answer: asyncio.Future[Response] | None = None
        self._chunks: list[bytes] = []
        self._retry_after = 0.0
        self._parsing = False  # the parser has seen a part of an answer
        self._stream: _Stream | None = None

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.pool.connections.add(self)

    def data_received(self, data: bytes) -> None:
        if not self._parsing and self._answer is not None and (answer := _whole(data)):
            self._answered(answer, keep=True)
            return
        self._parsing = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self.abort(f"not HTTP: {error}")

    def connection_lost(self, error: Exception | None) -> None:
        self._end(str(error) if error else _STALE)
        self.pool.lost(self)

    # httptools callbacks

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"retry-after" and value.isdigit():
            self._retry_after = float(value)

    def on_headers_complete(self) -> None:
        if self._stream is not None:
            self._stream.head(self._parser.get_status_code(), self._retry_after)
            self.deadline = 0.0

    def on_body(self, body: bytes) -> None:
        if self._stream is not None:
            self._stream.data(body)
        else:
            self._chunks.append(body)

    def on_message_complete(self) -> None:
        body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        answer = Response(self._parser.get_status_code(), body, self._retry_after)
        self._chunks.clear()
        self._retry_after, self._parsing = 0.0, False
        # a parser stays good for the next response of a connection that is kept alive
        self._answered(answer, self._parser.should_keep_alive())

    def _answered(self, answer: Response, keep: bool) -> None:
        self.deadline = 0.0
        if self._stream is not None:
            self._stream.ended("")
            self._stream, keep = None, False
        elif self._answer is not None:
            if not self._answer.done():
                self._answer.set_result(answer)
            self._answer = None
        self.used = True
        assert self.transport is not None
        if keep and not self.transport.is_closing():
            self.pool.free(self)
        else:
            self.transport.close()

    # what the pool asks of it

    def send(self, head: bytes, deadline: float) -> asyncio.Future[Response]:
        self._answer = self.pool.loop.create_future()
        self.deadline = deadline
        assert self.transport is not None
        self.transport.write(head)
        return self._answer

    def open(self, head: bytes, stream: _Stream, deadline: float) -> None:
        self._stream, self.deadline = stream, deadline
        assert self.transport is not None
        stream.transport = self.transport
        self.transport.write(head)

    def abort(self, why: str) -> None:
        self._end(why)
        if self.transport is not None:
            self.transport.abort()

    def _end(self, why: str) -> None:
        self.deadline = 0.0
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(Unreachable(why, sent=True))
        if self._stream is not None:
            self._stream.ended(why)
        self._answer = self._stream = None


class _Stream(Lines):
    """Lines that pause their socket when the reader falls far behind, and read it at most every `pace` seconds."""

    def __init__(self, loop: asyncio.AbstractEventLoop, pace: float) -> None:
        super().__init__()
        self._loop = loop
        self._pace = pace
        self._rests = False  # it has just been read
        self.transport: asyncio.Transport | None = None
        self._size = 0  # unread bytes
        self._paused = False

    def data(self, chunk: bytes) -> None:
        super().data(chunk)
        self._size += len(chunk)
        if self._size > _MAX_BUFFERED and self.transport is not None and not self._paused:
            self._paused = True
            self.transport.pause_reading()
        if self._pace and not self._rests:
            self._rest_until(_ENOUGH)
            self._loop.call_later(self._pace, self._rest_until, 1)

    def _rest_until(self, unread: int) -> None:
        """Have the kernel wake the loop when so many bytes are there, or the end."""
        self._rests = unread > 1
        if self.transport is not None and not self.transport.is_closing():
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, unread)

    async def lines(self) -> list[bytes] | None:
        lines = await super().lines()
        self._size = 0
        if self._paused and self.transport is not None and not self.transport.is_closing():
            self._paused = False
            self.transport.resume_reading()
        return lines


class Http1:
    """A pool of at most `size` connections, spread evenly over a target's API servers.

    Streams have connections of their own beside the pool. A server that cannot be reached is passed over for the next.
    What comes on a stream within `pace` seconds of the last is read together: a loop that wakes for each of a watch's
    events spends most of its time on waking.
    """

    def __init__(
        self,
        credential: Credential,
        servers: list[str],
        *,
        size: int = 8,
        user_agent: str = "turbokube",
        pace: float = 0.0,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.connections: set[_Connection] = set()
        self._context: ssl.SSLContext = credential.ssl_context()
        self._servers = [urlsplit(server) for server in servers]
        self._size = size
        self._pace = pace
        self._free: list[_Connection] = []
        self._open = 0  # connections of the pool that are open or being opened
        self._waiting: collections.deque[asyncio.Future[None]] = collections.deque()
        self._turn = 0
        self._streams: set[_Connection] = set()
        token = f"Authorization: Bearer {credential.token}\r\n" if credential.token else ""
        host = self._servers[0].netloc
        self._headers = f" HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {user_agent}\r\n{token}".encode()
        self._closed = False
        self._reaper = self.loop.call_later(1.0, self._reap)

    async def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        content_type: str = JSON,
        timeout: float = 30.0,
        accept: str = JSON,
    ) -> Response:
        """See Transport. What met a connection just closed is sent once more, unless a POST."""
        deadline = self.loop.time() + timeout
        head = self._head(method, path, body, content_type, accept)
        while True:
            connection = await self._take(deadline)
            fresh = not connection.used
            try:
                return await connection.send(head, deadline)
            except Unreachable as error:
                if fresh or method == "POST" or str(error) != _STALE:
                    raise
            except asyncio.CancelledError:
                connection.abort("cancelled")
                raise

    async def stream(self, path: str, accept: str = JSON) -> AsyncIterator[bytes]:
        """See Transport. Yields complete lines without their newline."""
        stream = _Stream(self.loop, self._pace)
        connection = await self._connect(self.loop.time() + 10.0)
        self._streams.add(connection)
        try:
            connection.open(self._head("GET", path, b"", JSON, accept), stream, self.loop.time() + 60.0)
            while (lines := await stream.lines()) is not None:
                for line in lines:
                    yield line
            stream.check(sent=True)
        finally:
            connection.abort("done")

    async def close(self) -> None:
        """Close every connection; requests under way end as Unreachable."""
        self._closed = True
        self._reaper.cancel()
        for connection in list(self.connections):
            connection.abort("closed")
        await asyncio.sleep(0)

    # what a connection tells its pool

    def free(self, connection: _Connection) -> None:
        connection.idle_since = self.loop.time()
        self._free.append(connection)
        self._wake_one()

    def lost(self, connection: _Connection) -> None:
        self.connections.discard(connection)
        if connection in self._streams:
            self._streams.discard(connection)
            return
        self._open -= 1
        if connection in self._free:
            self._free.remove(connection)
        self._wake_one()

    # inside

    def _head(self, method: str, path: str, body: bytes, content_type: str, accept: str) -> bytes:
        head = method.encode() + b" " + path.encode() + self._headers
        if not body:
            return head + f"Accept: {accept}\r\n\r\n".encode()
        lengths = f"Accept: {accept}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
        return head + lengths.encode() + body

    async def _take(self, deadline: float) -> _Connection:
        """A free connection, a new one while there is room, or the next that gets free."""
        while True:
            if self._closed:
                raise Unreachable("closed", sent=False)
            if self._free:
                return self._free.pop()
            if self._open < self._size:
                self._open += 1
                try:
                    return await self._connect(deadline)
                except BaseException:
                    self._open -= 1
                    self._wake_one()
                    raise
            turn: asyncio.Future[None] = self.loop.create_future()
            self._waiting.append(turn)
            handle = self.loop.call_at(deadline, _expire, turn)
            try:
                await turn
            finally:
                handle.cancel()

    def _wake_one(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    async def _connect(self, deadline: float) -> _Connection:
        """Connect to the next server in turn, or to the first after it that answers."""
        self._turn += 1
        last = "no server"
        for offset in range(len(self._servers)):
            server = self._servers[(self._turn + offset) % len(self._servers)]
            secure = server.scheme == "https"
            try:
                async with asyncio.timeout_at(min(deadline, self.loop.time() + 10.0)):
                    _, connection = await self.loop.create_connection(
                        lambda: _Connection(self),
                        server.hostname or "",
                        server.port or (443 if secure else 80),
                        ssl=self._context if secure else None,
                    )
                return connection
            except ssl.SSLCertVerificationError as error:
                last = f"{server.netloc}: {error.verify_message}"
            except TimeoutError:
                last = f"{server.netloc}: no connection in time"
            except OSError as error:
                last = f"{server.netloc}: {error.strerror or error}"
        raise Unreachable(last, sent=False)

    def _reap(self) -> None:
        """Give up on answers that are overdue; once a second is exact enough and costs nothing per request.

        The connection used last is used next, so the one that is idle longest is first; one is always kept.
        """
        now = self.loop.time()
        while len(self._free) > 1 and self._free[0].idle_since < now - _IDLE:
            self._free.pop(0).abort("idle")
        for connection in list(self.connections):
            if connection.deadline and connection.deadline < now:
                connection.abort("no answer in time")
        if not self._closed:
            self._reaper = self.loop.call_later(1.0, self._reap)


def _whole(data: bytes) -> Response | None:
    """The answer, if `data` is exactly one that succeeded and keeps the connection: a fifth of a parser's time."""
    if not data.startswith(b"HTTP/1.1 20"):
        return None
    end = data.find(b"\r\n\r\n")
    at = data.find(b"\r\nContent-Length: ", 0, end)
    if end < 0 or at < 0 or data.find(b"\r\nConnection: ", 0, end) >= 0:
        return None
    length = data[at + 18 : data.find(b"\r\n", at + 18)]
    if not length.isdigit() or len(data) != end + 4 + int(length):
        return None
    return Response(int(data[9:12]), data[end + 4 :])


def _expire(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_exception(Unreachable("no free connection in time", sent=False))
