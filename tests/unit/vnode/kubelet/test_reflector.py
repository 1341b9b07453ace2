from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from turbokube.api.protobuf import field, varint, wrap
from turbokube.vnode.kubelet import reflector
from turbokube.vnode.kubelet.reflector import Kind, Reflector
from turbokube.vnode.metrics import Counts

END = field(12, field(1, b"k8s.io/initial-events-end") + field(2, b"true"))


def pod(version: int, name: str = "p", more: bytes = b"") -> bytes:
    return field(1, field(1, name.encode()) + field(5, b"uid") + field(6, str(version).encode()) + more)


def frame(kind: str, raw: bytes) -> bytes:
    event = field(1, kind.encode()) + field(2, field(1, wrap("v1", "Pod", raw)))
    return len(event).to_bytes(4, "big") + event


def status(code: int) -> bytes:
    return field(2, b"Failure") + varint(6 << 3) + varint(code)


class Agenda:
    """Appointments that are kept when the test says so."""

    def __init__(self) -> None:
        self.pauses: list[float] = []
        self.jobs: list[Callable[[], object]] = []

    def after(self, seconds: float, job: Callable[[], object]) -> None:
        self.pauses.append(seconds)
        self.jobs.append(job)

    def keep(self) -> None:
        jobs, self.jobs = self.jobs, []
        for job in jobs:
            job()


class Owner:
    """A vnode whose connection is the test."""

    accept = "protobuf"

    def __init__(self) -> None:
        self.counts, self.agenda, self.streams = Counts(), Agenda(), self
        self.opened: list[str] = []
        self.cancelled: list[int] = []
        self.seen: list[tuple[str, bool]] = []
        self.synced = 0

    def open(self, path: str, accept: str, listener: Any) -> int:
        assert accept == self.accept
        self.opened.append(path)
        return len(self.opened)

    def cancel(self, stream: int) -> None:
        self.cancelled.append(stream)

    @property
    def asked(self) -> str:
        """What the last request was: initial, list or watch; with the version that it began at."""
        path = self.opened[-1]
        how = "initial" if "sendInitialEvents" in path else "watch" if "watch=true" in path else "list"
        version = re.search(r"resourceVersion=(\d+)", path)
        return f"{how} {version[1]}" if version else how


def start(see: bool = True) -> tuple[Owner, Reflector]:
    owner = Owner()

    def saw(to: Owner, kind: str, data: bytes, listed: bool) -> None:
        assert data.startswith(b"\n")  # an object without its envelope
        to.seen.append((kind, listed))

    def synced(to: Owner) -> None:
        to.synced += 1

    kind = Kind("/api/v1/pods", fields="spec.nodeName={name}", see=saw if see else None, synced=synced)
    itself = Reflector(owner, kind, "vnode-00007")
    itself.start()
    return owner, itself


def follow(see: bool = True) -> tuple[Owner, Reflector]:
    """One that has come so far as to watch from version 5."""
    owner, itself = start(see)
    itself.head(200, 0.0)
    itself.data(frame("ADDED", pod(9)) + frame("BOOKMARK", pod(5, "", END)))
    return owner, itself


def test_the_first_request_is_a_watch_that_begins_with_all_objects():
    owner, itself = start()
    assert re.fullmatch(
        r"/api/v1/pods\?allowWatchBookmarks=true&fieldSelector=spec.nodeName%3Dvnode-00007"
        r"&resourceVersionMatch=NotOlderThan&sendInitialEvents=true"
        r"&timeout=[5-9]m\d+s&timeoutSeconds=[345]\d\d&watch=true",
        owner.opened[0],
    )
    itself.head(200, 0.0)
    itself.data(frame("ADDED", pod(9)))
    assert (owner.synced, itself.version, itself.synced) == (0, "", False)  # these come in no order
    itself.data(frame("BOOKMARK", pod(5, "", END)) + frame("MODIFIED", pod(6)))
    assert owner.seen == [("ADDED", True), ("MODIFIED", False)]
    assert (owner.synced, itself.version, itself.synced) == (1, "6", True)
    assert owner.counts.requests == {("watch", "pods", "200"): 1}
    assert owner.counts.watches == 1


@pytest.mark.parametrize("size", [1, 3, 50])
def test_frames_may_come_in_any_pieces(size: int):
    owner, itself = start()
    itself.head(200, 0.0)
    data = frame("ADDED", pod(9)) + frame("BOOKMARK", pod(5, "", END)) + frame("DELETED", pod(7, "q" * 300))
    for at in range(0, len(data), size):
        itself.data(data[at : at + size])
    assert owner.seen == [("ADDED", True), ("DELETED", False)]
    assert itself.version == "7"


def test_what_nobody_reads_only_tells_where_to_go_on():
    owner, itself = follow(see=False)
    itself.data(frame("ADDED", pod(6)) + frame("MODIFIED", pod(8)))
    assert (itself.version, owner.seen) == ("8", [])
    itself.data(frame("ADDED", pod(9)) + frame("ERROR", status(410)))
    assert len(owner.agenda.pauses) == 1


def test_a_watch_that_the_server_ends_is_begun_again_where_it_was():
    owner, itself = follow()
    itself.data(frame("BOOKMARK", pod(40)))
    itself.ended("")
    assert owner.asked == "watch 40"
    assert "resourceVersionMatch" not in owner.opened[-1]
    assert owner.agenda.pauses == []
    assert (owner.counts.watches, owner.counts.rewatches) == (0, 1)


def test_a_connection_that_ends_is_an_end_and_one_that_dies_an_error():
    for why, then in (("connection closed by the server", "watch 6"), ("no answer to a ping", "initial 6")):
        owner, itself = follow()
        itself.data(frame("ADDED", pod(6)))
        itself.ended(why)
        owner.agenda.keep()
        assert owner.asked == then


def test_timeouts_of_thousands_are_spread():
    asked = {re.search(r"timeoutSeconds=(\d+)", start()[0].opened[0])[1] for _ in range(200)}  # type: ignore[index]
    assert len(asked) > 100
    assert all(300 <= int(seconds) < 600 for seconds in asked)


def test_a_server_that_is_away_is_tried_as_client_go_does_and_nothing_is_listed_again():
    owner, itself = follow()
    itself.data(frame("ADDED", pod(6)))
    itself.ended("")
    for _ in range(8):
        itself.ended("127.0.0.1:6443: connection refused")
        owner.agenda.keep()
        assert owner.asked == "watch 6"
    firsts = [0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0]
    assert all(first <= pause <= 2 * first for first, pause in zip(firsts, owner.agenda.pauses, strict=True))
    assert owner.counts.requests["watch", "pods", "unreachable"] == 8


def test_the_pause_is_a_first_one_again_after_two_calm_minutes(monkeypatch: pytest.MonkeyPatch):
    now = 1000.0
    monkeypatch.setattr(reflector.time, "monotonic", lambda: now)
    owner, itself = follow()
    now += 2.0
    itself.ended("")
    for calm, first in ((0.0, 0.8), (119.0, 1.6), (121.0, 0.8)):
        now += calm
        itself.ended("connection refused")
        assert first <= owner.agenda.pauses[-1] <= 2 * first
        owner.agenda.keep()


def test_an_event_of_a_version_that_is_too_old_lists_anew_after_a_pause():
    owner, itself = follow()
    itself.data(frame("ERROR", status(410)))
    assert owner.cancelled == [1]
    itself.ended("late")  # whatever else comes of it
    assert len(owner.opened) == 1
    owner.agenda.keep()
    assert owner.asked == "initial 5"
    itself.head(410, 0.0)
    itself.ended("")
    assert owner.asked == "initial"  # at once, and from whichever version the server has
    itself.head(200, 0.0)
    itself.data(frame("BOOKMARK", pod(90, "", END)))
    assert (owner.synced, itself.version, owner.counts.watches) == (2, "90", 1)


def test_too_many_requests_are_waited_out_without_a_list():
    owner, itself = follow()
    itself.data(frame("BOOKMARK", pod(6)))
    itself.ended("")
    itself.head(429, 1.0)
    itself.data(b"{}")
    itself.ended("")
    owner.agenda.keep()
    assert owner.asked == "watch 6"


def test_a_refusal_lists_anew_after_a_pause():
    owner, itself = follow()
    itself.data(frame("BOOKMARK", pod(6)))
    itself.ended("")
    itself.head(403, 0.0)
    itself.ended("")
    assert 0.8 <= owner.agenda.pauses[0] <= 1.6
    owner.agenda.keep()
    assert owner.asked == "initial 6"


def test_a_server_without_streaming_lists_is_listed_then_watched():
    owner, itself = start()
    itself.head(422, 0.0)
    itself.ended("")
    assert owner.asked == "list 0"
    itself.head(200, 0.0)
    body = wrap("v1", "PodList", field(1, field(2, b"33")) + field(2, pod(3)) + field(2, pod(4)))
    itself.data(body[:20])
    itself.data(body[20:])
    itself.ended("")
    assert owner.seen == [("ADDED", True)] * 2
    assert (owner.synced, owner.asked) == (1, "watch 33")
    assert owner.counts.requests["list", "pods", "200"] == 1


def test_a_watch_that_ends_at_once_with_nothing_said_has_failed():
    owner, itself = follow()
    itself.ended("connection closed by the server")  # nothing but the list has come on it
    assert len(owner.agenda.pauses) == 1
    owner.agenda.keep()
    assert owner.asked == "initial 5"


def test_nothing_follows_a_stop():
    owner, itself = follow()
    itself.stop()
    assert (owner.cancelled, owner.counts.watches) == ([1], 0)
    itself.data(frame("ADDED", pod(77)))
    itself.ended("closed")
    assert len(owner.opened) == 1

    owner, itself = follow()
    itself.ended("")
    itself.stop()
    owner.agenda.keep()
    assert len(owner.opened) == 1


def test_who_is_told_may_stop_it():
    owner = Owner()

    def saw(to: Owner, kind: str, data: bytes, listed: bool) -> None:
        to.seen.append((kind, listed))
        itself.stop()

    itself = Reflector(owner, Kind("/api/v1/pods", see=saw))
    itself.start()
    itself.head(200, 0.0)
    itself.data(frame("ADDED", pod(9)) * 3)
    assert len(owner.seen) == 1
    assert (owner.counts.watches, itself.synced) == (0, False)
