"""HTTP/2 over TLS: the transport of a client with a connection of its own, its watches multiplexed on it.

Made to be had ten thousand times in one process: its own framing (RFC 9113, the client's side only), no header table,
no Task and no generator per watch, one read buffer and one clock for all. What a connection costs is TLS: bench/http2.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
import struct
import zlib
from collections.abc import AsyncIterator, Sequence
from typing import Protocol
from urllib.parse import urlsplit

from . import hpack
from .credentials import Credential
from .transport import JSON, Response, Unreachable

_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE, _CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
_END_STREAM, _ACK, _END_HEADERS, _PADDED, _PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
_HEADER_TABLE_SIZE, _ENABLE_PUSH, _MAX_STREAMS, _INITIAL_WINDOW, _MAX_HEADERS = 1, 2, 3, 4, 6
_REFUSED_STREAM, _CANCEL = 7, 8

_ERRORS = {
    0: "NO_ERROR",
    1: "PROTOCOL_ERROR",
    2: "INTERNAL_ERROR",
    3: "FLOW_CONTROL_ERROR",
    5: "STREAM_CLOSED",
    7: "REFUSED_STREAM",
    8: "CANCEL",
    11: "ENHANCE_YOUR_CALM",
}

_FRAME = 16384  # the largest payload of a frame: what every peer takes, and all that we announce to take
_DEFAULT_WINDOW = 65535
_MAX_ID = 2**31 - 1

# Go's client (golang.org/x/net/http2, transport.go) announces these, and so does every kubelet
_STREAM_WINDOW = 4 << 20  # bytes that a stream may be behind its reader
_CONNECTION_WINDOW = 1 << 30
_HEADER_LIST = 10 << 20
_FIRST_MAX_STREAMS = 100  # of a server that has not said its own yet

# client-go's (k8s.io/apimachinery/pkg/util/net/http.go): a PING after so many silent seconds, so many for its answer
_READ_IDLE, _PING_TIMEOUT = 30.0, 15.0
_CONNECT_TIMEOUT = 10.0  # seconds

_PATH = b"\x04"  # :path, its value to follow
_STATUS_200 = 0x88  # nearly every answer begins so
_GZIP = b"\x1f\x8b"  # nothing else that an API server says begins so
_CLOSED = "connection closed by the server"

_head = struct.Struct(">HBBBI").unpack_from  # of a frame: length (high, low), type, flags, stream
_setting = struct.Struct(">HI")
_two = struct.Struct(">II")

# One for all connections: between two callbacks of the loop nothing is left in it
_BUFFER = memoryview(bytearray(2 * (9 + _FRAME)))


class Listener(Protocol):
    """Who hears of a stream. Called by the loop, so it neither blocks nor raises."""

    def head(self, status: int, retry_after: float) -> None:
        """The answer begins; `retry_after` in seconds, 0 when not given. The data of 300 and above is an error's."""

    def data(self, chunk: bytes) -> None:
        """Some bytes, cut wherever the network cut them."""

    def ended(self, why: str) -> None:
        """Nothing follows. "": the server ended it; else why it broke. Not called after `cancel`."""


class Stream:
    """A request under way: what `open` gives and `cancel` takes."""

    __slots__ = ("again", "connection", "held", "listener", "number", "owed", "sent")

    def __init__(self, connection: _Connection | None, listener: Listener) -> None:
        self.connection = connection  # None: it has ended
        self.listener = listener
        self.number = 0
        self.owed = 0  # bytes received for which the server has not got new room yet
        self.held = False  # room is given by the reader, as it reads
        self.sent = True  # False: the server has certainly not acted on it
        self.again = False  # it was lost in a way that a new connection mends


class Http2:
    """One connection to one of a target's API servers, made when it is needed and again when it was lost.

    `servers[index % n]` is tried first. More connections than one are open only while the server is taking leave of the
    last, or where one has as many streams as the server allows.
    """

    __slots__ = ("_closed", "_context", "_credential", "_headers", "_index", "_servers", "clock", "connections", "loop")

    def __init__(
        self, credential: Credential, servers: Sequence[str], *, user_agent: str = "turbokube", index: int = 0
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.clock = _clock(self.loop)
        self.connections: list[_Connection] = []  # the one to be used is the last
        self._credential = credential
        self._servers = servers
        self._index = index
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
        block = self._headers.block(method, path, accept, content_type, len(body))
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
        reader = _Reader()
        stream = self.open(path, accept, reader)
        stream.held = True
        rest = b""
        try:
            while data := await reader.more():
                if stream.connection is not None:
                    stream.connection.give_room(stream)
                if reader.status >= 300:
                    rest += data
                    continue
                lines = (rest + data).split(b"\n")
                rest = lines.pop()
                for line in lines:
                    yield line
            if reader.why:
                raise Unreachable(reader.why, sent=stream.sent)
            if reader.status >= 300:
                raise Response(reader.status, rest, reader.retry_after).error()
        finally:
            self.cancel(stream)

    async def close(self) -> None:
        """Close every connection; what is under way ends as Unreachable."""
        self._closed = True
        for connection in list(self.connections):
            connection.lose("closed")
        await asyncio.sleep(0)

    def _start(self, block: bytes, body: bytes, listener: Listener) -> Stream:
        if self._closed:
            stream = Stream(None, listener)
            stream.sent = False
            self.loop.call_soon(listener.ended, "closed")
            return stream
        if not self.connections or not self.connections[-1].has_room():
            self.connections.append(_Connection(self))
        return self.connections[-1].start(block, body, listener)

    # what a connection asks

    async def connect(self) -> ssl.SSLSocket:
        """A socket with TLS to the first server in turn that answers. Raises Unreachable."""
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
                last = f"{server.netloc}: {error.strerror or error}"
        raise Unreachable(last, sent=False)

    async def _connect(self, host: str, port: int) -> ssl.SSLSocket:
        family, kind, protocol, _, address = (
            await self.loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
        )[0]
        plain = socket.socket(family, kind, protocol)
        try:
            plain.setblocking(False)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self.loop.sock_connect(plain, address)
            if self._credential.pem_file:  # no await from here to wrap_socket: the context is lent
                self._context.load_cert_chain(self._credential.pem_file)
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

    async def _handshake(self, secure: ssl.SSLSocket) -> None:
        while True:
            try:
                secure.do_handshake()
                break
            except ssl.SSLWantReadError:
                pass
            readable = self.loop.create_future()
            self.loop.add_reader(secure, _settle, readable)
            try:
                await readable
            finally:
                self.loop.remove_reader(secure)
        if secure.selected_alpn_protocol() != "h2":
            raise OSError("the server speaks no HTTP/2")


class _Connection:
    """One socket and its streams. From its making on it takes requests, which leave once it is up."""

    __slots__ = (
        "_block",
        "_blocked",
        "_max_streams",
        "_next",
        "_out",
        "_owed",
        "_rest",
        "_room",
        "_stream_room",
        "_task",
        "_tls",
        "_writing",
        "heard",
        "leaving",
        "owner",
        "pinged",
        "streams",
        "used",
    )

    def __init__(self, owner: Http2) -> None:
        self.owner = owner
        self.streams: dict[int, Stream] = {}
        self.leaving = False  # no new streams: it is full for ever, or the server said GOAWAY
        self.used = False  # it has answered before
        self.heard = 0.0  # loop time of the last bytes from the server
        self.pinged = 0.0  # loop time of a PING that is not answered
        self._tls: ssl.SSLSocket | None = None
        self._out: bytes = _HELLO  # what waits to be written
        self._writing = False  # the loop tells when more can be
        self._rest = b""  # a frame that has not come whole
        self._block: tuple[int, int, bytes] | None = None  # stream, flags and headers that CONTINUATIONs go on with
        self._next = 1
        self._owed = 0  # as Stream.owed, of all streams
        self._room = _DEFAULT_WINDOW  # bytes of bodies that the server takes now
        self._stream_room = _DEFAULT_WINDOW  # the same, of each new stream
        self._blocked: dict[int, tuple[bytes, int]] = {}  # bodies that found no room: what is left, the stream's room
        self._max_streams = _FIRST_MAX_STREAMS
        self._task: asyncio.Task[None] | None = owner.loop.create_task(self._connect())

    async def _connect(self) -> None:
        try:
            self._tls = await self.owner.connect()
        except Unreachable as error:
            self._task = None
            self.lose(str(error), sent=False)
            return
        self._task = None
        self.heard = self.owner.loop.time()
        self.owner.clock.connections.add(self)
        self.owner.loop.add_reader(self._tls, self._readable)
        self._flush()

    # requests

    def has_room(self) -> bool:
        return not self.leaving and len(self.streams) < self._max_streams

    def start(self, block: bytes, body: bytes, listener: Listener) -> Stream:
        """Send a request; `block` is its headers."""
        stream = Stream(self, listener)
        number = stream.number = self._next
        self._next = number + 2
        self.leaving = self.leaving or number + 2 > _MAX_ID
        self.streams[number] = stream
        if not body:
            self._write(_frame(_HEADERS, _END_HEADERS | _END_STREAM, number, block))
        elif len(body) <= self._room and len(body) <= self._stream_room:
            self._room -= len(body)
            self._write(_frame(_HEADERS, _END_HEADERS, number, block) + _body(_END_STREAM, number, body))
        else:
            self._write(_frame(_HEADERS, _END_HEADERS, number, block))
            self._blocked[number] = body, self._stream_room
            self._unblock(number)
        return stream

    def cancel(self, stream: Stream) -> None:
        if self.streams.pop(stream.number, None) is not None:
            stream.connection = None
            self._blocked.pop(stream.number, None)
            self._write(_frame(_RST_STREAM, 0, stream.number, _CANCEL.to_bytes(4, "big")))
            self._done()

    def give_room(self, stream: Stream) -> None:
        """Let the server send what the reader of a held stream has read."""
        if stream.owed >= _STREAM_WINDOW // 2:
            self._write(_frame(_WINDOW_UPDATE, 0, stream.number, stream.owed.to_bytes(4, "big")))
            stream.owed = 0

    def check(self, now: float) -> None:
        """Ask a server that has long been silent whether it is there; give it up when it does not answer."""
        if self.pinged:
            if now - self.pinged > _PING_TIMEOUT:
                self.lose("no answer to a PING")
        elif now - self.heard > _READ_IDLE:
            self.pinged = now
            self._write(_frame(_PING, 0, 0, bytes(8)))

    def lose(self, why: str, *, sent: bool = True, again: bool = False) -> None:
        """The end of the connection, and of every stream on it."""
        self.leaving = True
        if self in self.owner.connections:
            self.owner.connections.remove(self)
        self.owner.clock.connections.discard(self)
        if self._task is not None:
            self._task.cancel()
            self._task, sent = None, False
        if self._tls is not None:
            self.owner.loop.remove_reader(self._tls)
            self.owner.loop.remove_writer(self._tls)
            self._tls.close()
            self._tls = None
        for stream in list(self.streams.values()):
            self._end(stream, why, sent=sent, again=again)

    # the socket

    def _write(self, data: bytes) -> None:
        if self._out or self._tls is None:
            self._out += data
            return
        try:
            sent = self._tls.send(data)
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            sent = 0
        except OSError as error:  # not from here: the caller has not got its stream yet
            self.owner.loop.call_soon(self._broke, error)
            return
        if sent < len(data):
            self._out = data[sent:]
            self._flush()

    def _flush(self) -> None:
        """Write what waits, as far as the socket takes it; the rest when it takes more."""
        if self._tls is None:
            return
        try:
            while self._out:
                self._out = self._out[self._tls.send(self._out) :]
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            pass
        except OSError as error:
            self._broke(error)
            return
        if bool(self._out) != self._writing:
            self._writing = not self._writing
            if self._writing:
                self.owner.loop.add_writer(self._tls, self._flush)
            else:
                self.owner.loop.remove_writer(self._tls)

    def _broke(self, error: OSError) -> None:
        closed = isinstance(error, (ConnectionError, ssl.SSLEOFError))
        self.lose(_CLOSED if closed else error.strerror or str(error), again=closed and self.used)

    def _readable(self) -> None:
        """One TLS record; the loop calls again when there is more, since nothing is read ahead."""
        assert self._tls is not None
        kept = len(self._rest)
        _BUFFER[:kept] = self._rest
        try:
            count = self._tls.recv_into(_BUFFER[kept:])
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError as error:
            self._broke(error)
            return
        if not count:
            self.lose(_CLOSED, again=self.used)
            return
        self.heard = self.owner.loop.time()
        self.pinged = 0.0
        try:
            self._feed(kept + count)
        except (ValueError, IndexError, struct.error) as error:
            self.lose(f"not HTTP/2: {error}")

    def _feed(self, end: int) -> None:
        at = 0
        while end - at >= 9:
            high, low, kind, flags, number = _head(_BUFFER, at)
            length = high << 8 | low
            if length > _FRAME:
                self.lose("a frame larger than allowed")
                return
            if end - at - 9 < length:
                break
            start, at = at + 9, at + 9 + length
            self._frame(kind, flags, number & _MAX_ID, bytes(_BUFFER[start:at]))
            if self._tls is None:  # whoever heard of it closed us
                return
        self._rest = bytes(_BUFFER[at:end])

    # frames

    def _frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if kind == _DATA:
            self._data(flags, number, payload)
        elif kind == _HEADERS:
            padded = payload[0] if flags & _PADDED else 0
            start = bool(flags & _PADDED) + (5 if flags & _PRIORITY else 0)
            self._headers(flags, number, payload[start : len(payload) - padded])
        elif kind == _CONTINUATION and self._block is not None:
            number, first, block = self._block
            self._headers(first | flags, number, block + payload)
        elif kind == _WINDOW_UPDATE:
            self._widen(number, int.from_bytes(payload, "big") & _MAX_ID)
        elif kind == _PING and not flags & _ACK:
            self._write(_frame(_PING, _ACK, 0, payload))
        elif kind == _SETTINGS and not flags & _ACK:
            self._settings(payload)
        elif kind == _RST_STREAM and (stream := self.streams.get(number)) is not None:
            code = int.from_bytes(payload, "big")
            refused = code == _REFUSED_STREAM
            self._end(stream, f"stream reset by the server: {_error(code)}", sent=not refused, again=refused)
            self._done()
        elif kind == _GOAWAY:
            self._goaway(*_two.unpack_from(payload))

    def _data(self, flags: int, number: int, payload: bytes) -> None:
        length = len(payload)
        self._owed += length
        if self._owed >= _CONNECTION_WINDOW // 2:
            self._write(_frame(_WINDOW_UPDATE, 0, 0, self._owed.to_bytes(4, "big")))
            self._owed = 0
        if (stream := self.streams.get(number)) is None:
            return  # cancelled
        if flags & _PADDED:
            payload = payload[1 : length - payload[0]]
        stream.owed += length
        if stream.owed >= _STREAM_WINDOW // 2 and not stream.held and not flags & _END_STREAM:
            self.give_room(stream)
        if payload:
            stream.listener.data(payload)
        if flags & _END_STREAM:
            self._end(stream, "")
            self._done()

    def _headers(self, flags: int, number: int, block: bytes) -> None:
        if not flags & _END_HEADERS:
            if len(block) > _HEADER_LIST:
                raise hpack.HeaderError("more headers than allowed")
            self._block = number, flags, block
            return
        self._block = None
        if (stream := self.streams.get(number)) is None:
            return
        status, retry_after = _answer(block)
        if status >= 200:  # else an interim answer; 0: trailers
            self.used = True
            stream.listener.head(status, retry_after)
        if flags & _END_STREAM and number in self.streams:
            self._end(stream, "")
            self._done()

    def _settings(self, payload: bytes) -> None:
        for name, value in _setting.iter_unpack(payload):
            if name == _MAX_STREAMS:
                self._max_streams = value
            elif name == _INITIAL_WINDOW:
                more, self._stream_room = value - self._stream_room, value
                self._blocked = {number: (rest, room + more) for number, (rest, room) in self._blocked.items()}
        self._write(_frame(_SETTINGS, _ACK, 0, b""))
        self._widen(0, 0)

    def _widen(self, number: int, more: int) -> None:
        if number:
            if number in self._blocked:
                rest, room = self._blocked[number]
                self._blocked[number] = rest, room + more
                self._unblock(number)
            return
        self._room += more
        for waiting in list(self._blocked):
            self._unblock(waiting)

    def _unblock(self, number: int) -> None:
        """Send of a body what the server has room for."""
        rest, room = self._blocked[number]
        length = min(len(rest), room, self._room)
        if length <= 0:
            return
        self._room -= length
        if length < len(rest):
            self._blocked[number] = rest[length:], room - length
            self._write(_body(0, number, rest[:length]))
        else:
            del self._blocked[number]
            self._write(_body(_END_STREAM, number, rest))

    def _goaway(self, last: int, code: int) -> None:
        """New requests go elsewhere; the server finishes those up to `last` and knows nothing of the others."""
        self.leaving = True
        why = f"connection ended by the server: {_error(code)}"
        for stream in [stream for number, stream in self.streams.items() if number > last]:
            self._end(stream, why, sent=False, again=True)
        self._done()

    def _end(self, stream: Stream, why: str, *, sent: bool = True, again: bool = False) -> None:
        stream.connection = None
        stream.sent, stream.again = sent, again
        self.streams.pop(stream.number, None)
        self._blocked.pop(stream.number, None)
        stream.listener.ended(why)

    def _done(self) -> None:
        if self.leaving and not self.streams:
            self.lose("done")


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
        if body.startswith(_GZIP):
            body = zlib.decompress(body, wbits=31)
        self.answer.set_result(Response(self._status, body, self._retry_after))


class _Reader:
    """The listener of `Http2.stream`."""

    def __init__(self) -> None:
        self.status = 0
        self.retry_after = 0.0
        self.why: str | None = None  # as `ended` said
        self._parts: list[bytes] = []
        self._wake = asyncio.Event()

    def head(self, status: int, retry_after: float) -> None:
        self.status, self.retry_after = status, retry_after

    def data(self, chunk: bytes) -> None:
        self._parts.append(chunk)
        self._wake.set()

    def ended(self, why: str) -> None:
        self.why = why
        self._wake.set()

    async def more(self) -> bytes:
        """What came since the last call, awaited if there is nothing; b"" at the end."""
        while not self._parts and self.why is None:
            self._wake.clear()
            await self._wake.wait()
        data = b"".join(self._parts)
        self._parts.clear()
        return data


class _Clock:
    """What time decides, for all connections of a loop: overdue answers, and servers that are silent."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.calls: dict[_Call, Http2] = {}
        self.connections: set[_Connection] = set()
        self._loop = loop
        self._ticks = 0
        self._tick()

    def _tick(self) -> None:
        """Once a second is exact enough, and costs nothing per request; once in five for silence."""
        now = self._loop.time()
        for call, owner in list(self.calls.items()):
            if call.deadline < now:
                owner.cancel(call.stream)
                call.ended("no answer in time")
        self._ticks += 1
        if self._ticks % 5 == 0:
            for connection in list(self.connections):
                connection.check(now)
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
        return block + hpack.field(b"content-length", b"%d" % length) if length else block

    def _make(self, method: str, accept: str, content_type: str) -> tuple[bytes, bytes]:
        before = self._begin + hpack.field(b":method", method.encode()) + _PATH
        after = hpack.field(b":scheme", b"https") + hpack.field(b"accept", accept.encode())
        if content_type:
            after += hpack.field(b"content-type", content_type.encode())
        self._ready[method, accept, content_type] = before, after + self._agent + self._end
        return self._ready[method, accept, content_type]


_headers = functools.lru_cache(maxsize=64)(_Headers)
_clock = functools.lru_cache(maxsize=1)(_Clock)


@functools.lru_cache(maxsize=64)
def _context(credential: Credential, lent: bool) -> ssl.SSLContext:
    """A context of this credential; one that is `lent` has the certificate of whoever connected last."""
    context = credential.ssl_context()
    context.set_alpn_protocols(["h2"])
    return context


def _answer(block: bytes) -> tuple[int, float]:
    """Status and Retry-After in seconds; a status of 0 where there is none, as in trailers."""
    if block[0] == _STATUS_200:
        return 200, 0.0
    fields = hpack.fields(block)
    name, value = next(fields, (b"", b""))
    if name != b":status":
        return 0, 0.0
    status = int(value)
    if status < 300:
        return status, 0.0
    wait = dict(fields).get(b"retry-after", b"")
    return status, float(wait) if wait.isdigit() else 0.0


def _frame(kind: int, flags: int, number: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + number.to_bytes(4, "big") + payload


def _body(flags: int, number: int, body: bytes) -> bytes:
    """DATA frames, `flags` on the last."""
    if len(body) <= _FRAME:
        return _frame(_DATA, flags, number, body)
    cuts = range(0, len(body), _FRAME)
    return b"".join(
        _frame(_DATA, flags if cut + _FRAME >= len(body) else 0, number, body[cut : cut + _FRAME]) for cut in cuts
    )


def _error(code: int) -> str:
    return _ERRORS.get(code, f"error {code}")


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


_HELLO = (
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    + _frame(
        _SETTINGS,
        0,
        0,
        b"".join(
            _setting.pack(*setting)
            for setting in (
                (_ENABLE_PUSH, 0),
                (_INITIAL_WINDOW, _STREAM_WINDOW),
                (_MAX_HEADERS, _HEADER_LIST),
                (_HEADER_TABLE_SIZE, 0),
            )
        ),
    )
    + _frame(_WINDOW_UPDATE, 0, 0, _CONNECTION_WINDOW.to_bytes(4, "big"))
)
