"""One collection as client-go's reflector follows it, by callbacks: no task, no generator and 200 bytes per watch.

What is done when, and the figures, are tools/cache/reflector.go's of client-go 0.36: the list is a watch that begins
with all objects and a bookmark at their end (WatchList), which a server that does not know it answers with an error,
and then there is a plain list; a watch that ends is begun again from the last resourceVersion.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any, Protocol
from urllib.parse import quote

from ...api import protobuf
from ...api.http2 import Listener
from ..clock import Agenda
from ..metrics import Counts

_SHORTEST_WATCH = 300.0  # seconds; a watch is asked to last between this and twice this
_FIRST_PAUSE, _LONGEST_PAUSE = 0.8, 30.0  # seconds, each times 1 to 2
_CALM = 120.0  # seconds without a pause, after which the next is a first one again
_VERY_SHORT = 1.0  # seconds: a watch that ended sooner and said nothing has failed
_MOST_STEPS = 6  # 0.8 s doubled so often is above the longest pause

# what a reflector is at
_IDLE, _INITIAL, _LISTING, _WATCHING, _PAUSING, _STOPPED = range(6)

_ERROR = b"\n\x05ERROR"  # how the frame of such an event begins


class Streams(Protocol):
    """What a connection offers to those that watch: see api.http2.Http2."""

    def open(self, path: str, accept: str, listener: Listener) -> Any: ...

    def cancel(self, stream: Any) -> None: ...


class Owner(Protocol):
    """Whose watch it is: a kubelet or a kube-proxy."""

    @property
    def streams(self) -> Streams: ...

    @property
    def accept(self) -> str: ...

    @property
    def agenda(self) -> Agenda: ...

    @property
    def counts(self) -> Counts: ...


class Kind:
    """What is watched, and who is told. One object for all vnodes; `name` in the selector is each vnode's own."""

    __slots__ = ("path", "resource", "see", "selector", "shortest", "synced", "timeout")

    def __init__(
        self,
        path: str,
        *,
        fields: str = "",
        labels: str = "",
        see: Callable[[Any, str, bytes, bool], None] | None = None,
        synced: Callable[[Any], None] | None = None,
        shortest: float = _SHORTEST_WATCH,
        timeout: bool = True,
    ) -> None:
        """`see` gets the owner, the event's type, the object's protobuf and whether it was in a list.

        `timeout`: say it twice, as client-go's typed clients do.
        """
        self.path = path
        self.resource = path.rpartition("/")[2]
        self.selector = "".join(
            f"&{name}={quote(text, safe='{}')}"
            for name, text in (("fieldSelector", fields), ("labelSelector", labels))
            if text
        )
        self.see = see
        self.synced = synced
        self.shortest = shortest
        self.timeout = timeout


class Reflector:
    """One watch of one vnode; a Listener of its connection. `version` is the resourceVersion it goes on from."""

    __slots__ = ("_again", "_name", "_paused", "_quiet", "_rest", "_since", "_state", "_status", "_step", "_stream",
                 "kind", "owner", "version")  # fmt: skip

    def __init__(self, owner: Owner, kind: Kind, name: str = "") -> None:
        self.owner = owner
        self.kind = kind
        self.version = ""
        self._name = name
        self._state = _IDLE
        self._stream: Any = None
        self._status = 0
        self._rest = b""  # what has come of a frame, a list or an error so far
        self._since = 0.0  # when the stream was opened
        self._quiet = True  # no event has come on it
        self._paused = 0.0  # when there was a pause last
        self._step = 0  # how often it was doubled
        self._again = _INITIAL  # what follows the pause

    @property
    def synced(self) -> bool:
        """Whether everything that there was at its start has been seen."""
        return self._state == _WATCHING or (self._state == _PAUSING and self._again == _WATCHING)

    def start(self) -> None:
        """List, then watch, until stopped."""
        self._open(_INITIAL)

    def stop(self) -> None:
        """End it: nobody is told anything from now on."""
        if self._state in (_INITIAL, _LISTING, _WATCHING):
            self.owner.streams.cancel(self._stream)
            self._closed()
        self._state, self._rest = _STOPPED, b""

    # Listener

    def head(self, status: int, retry_after: float) -> None:
        self._status = status
        verb = "list" if self._state == _LISTING else "watch"
        self.owner.counts.requests[verb, self.kind.resource, str(status)] += 1
        if status == 200 and self._state != _LISTING:
            self.owner.counts.watches += 1

    def data(self, chunk: bytes) -> None:
        if self._status == 200 and self._state != _LISTING:
            self._frames(self._rest + chunk if self._rest else chunk)
        else:
            self._rest += chunk

    def ended(self, why: str) -> None:
        state, status = self._state, self._status
        if state in (_PAUSING, _STOPPED):
            return
        self._closed()
        if status == 0:  # nothing was opened; while nobody listens, there is nothing to list anew
            self.owner.counts.requests["watch", self.kind.resource, "unreachable"] += 1
            self._pause(state if "refused" in why else _INITIAL)
        elif status != 200:
            self._refused(status)
        elif state == _LISTING:
            self._listed(why)
        elif (self._quiet and time.monotonic() - self._since < _VERY_SHORT) or "ping" in why:
            self._pause(_INITIAL)  # client-go takes a connection that died for an error, and one that ended for an end
        else:
            self._open(state)

    # what follows from it

    def _refused(self, status: int) -> None:
        """The server answered, but not with a stream or a list."""
        if status == 429:
            self._pause(self._state)
        elif self._state == _WATCHING:
            self._pause(_INITIAL)
        elif status in (410, 504) and self.version:  # it does not have the version: whichever it has will do
            self.version = ""
            self._open(_INITIAL)
        elif self._state == _INITIAL:
            self._open(_LISTING)
        else:
            self._pause(_INITIAL)

    def _broken(self, code: int) -> None:
        """An event of type ERROR: the watch is of no use any more."""
        self.owner.streams.cancel(self._stream)
        self._closed()
        if code == 429:
            self._pause(self._state)
        elif self._state == _INITIAL:
            self._refused(code)
        else:
            self._pause(_INITIAL)

    def _listed(self, why: str) -> None:
        if why:
            self._pause(_INITIAL)
            return
        self.version, items = protobuf.items(self._rest)
        self._rest = b""
        if (see := self.kind.see) is not None:
            for item in items:
                see(self.owner, "ADDED", item, True)
        self._complete()
        if self._state == _LISTING:  # not stopped by who was told
            self._open(_WATCHING)

    def _frames(self, data: bytes) -> None:
        frames, self._rest = protobuf.frames(data)
        if not frames:
            return
        state, see, last = self._state, self.kind.see, b""
        if see is None and state == _WATCHING and not any(frame.startswith(_ERROR) for frame in frames):
            frames = frames[-1:]  # nobody reads these objects: where to go on from is all that they tell
        for frame in frames:
            kind, last = protobuf.event(frame)
            self._quiet = False
            if kind == "ERROR":
                return self._broken(protobuf.status(last).code)
            if kind == "BOOKMARK":
                if state == _INITIAL and protobuf.initial_events_end(last):
                    self._state = state = _WATCHING
                    self._quiet, self._since = True, time.monotonic()
                    self._complete()
            elif see is not None:
                see(self.owner, kind, last, state == _INITIAL)
            if self._state != state:
                return None  # stopped by who was told
        if state == _WATCHING:  # what comes before is in no order
            self.version = protobuf.resource_version(last).decode()
        return None

    def _complete(self) -> None:
        if self.kind.synced is not None:
            self.kind.synced(self.owner)

    # requests

    def _open(self, state: int) -> None:
        if self._since and state != _LISTING:
            self.owner.counts.rewatches += 1
        self._state, self._status, self._rest, self._quiet = state, 0, b"", True
        self._since = time.monotonic()
        self._stream = self.owner.streams.open(self._path(state), self.owner.accept, self)

    def _path(self, state: int) -> str:
        kind = self.kind
        selector = kind.selector.replace("{name}", self._name)
        if state == _LISTING:
            return f"{kind.path}?limit=500&resourceVersion={self.version or 0}{selector}"
        seconds = int(random.uniform(kind.shortest, 2 * kind.shortest))
        version = f"&resourceVersion={self.version}" if self.version else ""
        initial = "&resourceVersionMatch=NotOlderThan&sendInitialEvents=true" if state == _INITIAL else ""
        timeout = f"&timeout={seconds // 60}m{seconds % 60}s" if kind.timeout else ""
        return (
            f"{kind.path}?allowWatchBookmarks=true{selector}{version}{initial}{timeout}"
            f"&timeoutSeconds={seconds}&watch=true"
        )

    def _pause(self, again: int) -> None:
        now = time.monotonic()
        if now - self._paused > _CALM:
            self._step = 0
        pause = min(_FIRST_PAUSE * 2**self._step, _LONGEST_PAUSE)
        self._paused, self._step = now, min(self._step + 1, _MOST_STEPS)
        self._state, self._again, self._rest = _PAUSING, again, b""
        self.owner.agenda.after(pause * random.uniform(1.0, 2.0), self._resume)

    def _resume(self) -> None:
        if self._state == _PAUSING:
            self._open(self._again)

    def _closed(self) -> None:
        if self._status == 200 and self._state != _LISTING:
            self.owner.counts.watches -= 1
