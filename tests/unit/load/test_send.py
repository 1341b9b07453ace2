"""One request until it is done or refused, and the account of it: against answers that are written down."""

from __future__ import annotations

import asyncio
import math
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from turbokube.api.transport import ApiError, Response, Unreachable
from turbokube.bundle.ledger import Action, Ledger
from turbokube.bundle.reader import Reader
from turbokube.bundle.writer import Writer
from turbokube.load.pacing import Gate
from turbokube.load.send import Request, Requests, Sender

OURS = msgspec.json.encode(
    {"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"turbokube.io/run": "r"}}}
)
THEIRS = msgspec.json.encode({"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"}})


class Answers:
    """Gives these, in their order."""

    def __init__(self, *answers: Response | Unreachable) -> None:
        self.left = list(answers)
        self.asked: list[str] = []

    async def request(self, method: str, path: str, *_: Any, **__: Any) -> Response:
        self.asked.append(f"{method} {path}")
        answer = self.left.pop(0)
        if isinstance(answer, Unreachable):
            raise answer
        return answer


class Case:
    """A sender with its ledger, and what the record says in the end."""

    def __init__(self, folder: Path, *answers: Response | Unreachable) -> None:
        self.folder = folder
        self.transport = Answers(*answers)
        self.writer = Writer(folder)
        self.ledger = Ledger(self.writer)
        self.requests = Requests(self.writer, "p")
        self.troubles = 0
        self.sender = Sender(self.transport, self.ledger, self.requests, Gate(), self._trouble)  # type: ignore[arg-type]

    def _trouble(self) -> None:
        self.troubles += 1

    def end(self) -> dict[str, int]:
        self.requests.write()
        self.writer.close()
        columns = ("intended", "sent", "accepted", "throttled", "retried", "failed")
        with Reader(self.folder) as reader:
            row = reader.query(f"SELECT {', '.join(f'sum({name})' for name in columns)} FROM requests")[0]
        return {name: count for name, count in zip(columns, row, strict=True) if count}


def action(verb: str) -> tuple[Action, Request]:
    method = {"patch": "PATCH", "delete": "DELETE", "create": "POST"}[verb]
    return Action("p", 0, verb, "Secret", "ns", "x"), Request(verb, "secrets", method, "/secrets")


DONE, BUSY, AWAY = Response(200, b"{}"), Response(429, b"{}", 0.01), Response(503, b"{}")
RESET = Unreachable("reset", sent=True)


@pytest.mark.parametrize(
    ("verb", "answers", "sums"),
    [
        ("patch", [DONE], {"intended": 1, "sent": 1, "accepted": 1}),
        ("patch", [BUSY, BUSY, DONE], {"intended": 1, "sent": 3, "accepted": 1, "throttled": 2}),
        ("patch", [AWAY, RESET, DONE], {"intended": 1, "sent": 3, "accepted": 1, "retried": 2}),
        ("patch", [Response(409, b"{}"), DONE], {"intended": 1, "sent": 2, "accepted": 1, "retried": 1}),
        ("patch", [Response(404, b"{}")], {"intended": 1, "sent": 1, "failed": 1}),
        ("patch", [Response(403, b"{}"), DONE], {"intended": 1, "sent": 2, "accepted": 1, "retried": 1}),
        ("delete", [Response(404, b"{}")], {"intended": 1, "sent": 1, "accepted": 1}),  # it is not there: done
        ("delete", [Response(409, b"{}")], {"intended": 1, "sent": 1, "accepted": 1}),  # a namespace on its way
        ("delete", [Response(422, b"{}")], {"intended": 1, "sent": 1, "failed": 1}),
        ("create", [RESET, Response(409, b"{}"), Response(200, OURS)],
         {"intended": 1, "sent": 2, "accepted": 1, "retried": 1}),
        ("create", [Response(409, b"{}"), Response(200, THEIRS)], {"intended": 1, "sent": 1, "failed": 1}),
        ("create", [Response(404, b"{}"), DONE], {"intended": 1, "sent": 2, "accepted": 1, "retried": 1}),
    ],
)  # fmt: skip
def test_an_action_is_tried_while_that_can_help(
    tmp_path: Path, verb: str, answers: list[Any], sums: dict[str, int]
) -> None:
    case, (row, request) = Case(tmp_path, *answers), action(verb)
    answer = asyncio.run(case.sender.act(row, request, "r"))
    assert not case.transport.left
    assert (answer is not None, row.failed) == ("accepted" in sums, sums.get("failed", 0))
    assert (row.accepted is not None) == ("accepted" in sums)
    assert (row.throttled, row.retries) == (sums.get("throttled", 0), sums.get("retried", 0))
    assert case.troubles == answers.count(RESET)
    assert case.end() == sums


def test_what_is_refused_has_a_reason(tmp_path: Path) -> None:
    case, (row, request) = (
        Case(tmp_path, Response(422, b'{"reason": "Invalid", "message": "too long"}')),
        action("patch"),
    )
    assert asyncio.run(case.sender.act(row, request, "r")) is None
    assert case.sender.refusal == "Secret ns/x: 422 Invalid: too long"
    case.end()


def test_latency_is_from_the_intended_moment_in_buckets_of_five_percent(tmp_path: Path) -> None:
    case, (row, request) = Case(tmp_path, DONE, DONE), action("patch")
    row.intended = time.time() - 2.0
    asyncio.run(case.sender.act(row, request, "r"))
    asyncio.run(case.sender.act(*action("patch"), "r"))
    case.end()
    with Reader(tmp_path) as reader:
        rows = reader.query("SELECT phase, resource, verb, le, count FROM latencies ORDER BY le")
        (sums,) = reader.query("SELECT sum(latency_sum), max(latency_max) FROM requests")
    assert [(*tuple(each)[:3], each[4]) for each in rows] == [("p", "secrets", "patch", 1)] * 2
    assert rows[0]["le"] < 0.1
    assert 2.0 <= sums[1] <= rows[1]["le"] < 2.5
    power = math.log(rows[1]["le"]) / math.log(1.05)
    assert power == pytest.approx(round(power))


def test_latencies_of_an_earlier_agent_are_gone_on_with(tmp_path: Path) -> None:
    for _ in range(3):
        writer = Writer(tmp_path)
        requests = Requests(writer, "p")
        for latency in (0.01, 0.01, 5.0):
            requests.add("pods", "list", "accepted", latency)
        requests.write()
        writer.close()
    with Reader(tmp_path) as reader:
        assert [tuple(row) for row in reader.query("SELECT count FROM latencies ORDER BY le")] == [(6,), (3,)]


def test_each_writing_has_the_latencies_of_its_requests_and_no_others(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    requests = Requests(writer, "p")
    for number in (1, 2):
        requests.add("pods", "list", "accepted", 0.01)
        requests.write()
        writer.flush()  # an agent that is killed has written this, and no more
        with Reader(tmp_path) as reader:
            assert reader.query("SELECT sum(accepted) FROM requests")[0][0] == number
            assert reader.query("SELECT sum(count) FROM latencies")[0][0] == number
    writer.close()


def test_what_was_meant_is_counted_in_its_own_second(tmp_path: Path) -> None:
    case, (row, request) = Case(tmp_path, DONE), action("patch")
    meant = time.time() - 7.0
    case.sender.meant(row, "secrets", "patch", meant)
    assert case.sender.lag == pytest.approx(7.0, abs=0.5)
    case.sender.lag = 0.0
    asyncio.run(case.sender.act(row, request, "r"))
    assert case.sender.lag == 0.0  # what it waited for since is not the generator's
    case.sender.meant(row, "secrets", "patch", time.time())  # once is enough
    assert case.end() == {"intended": 1, "sent": 1, "accepted": 1}
    with Reader(tmp_path) as reader:
        rows = [tuple(each) for each in reader.query("SELECT second, intended, sent FROM requests ORDER BY second")]
    assert rows[0] == (int(meant), 1, 0)
    assert rows[-1][1:] == (0, 1)


def test_reads_give_their_answer_or_say_why_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("turbokube.load.send.FORGIVEN_S", 0.0)
    case = Case(tmp_path, BUSY, DONE, Response(404, b"{}"), Response(410, b"{}"), Response(404, b"{}"))

    async def scenario() -> None:
        got, listed = (Request(verb, "pods", "GET", "/pods") for verb in ("get", "list"))
        assert await case.sender.read(got, time.time()) is DONE
        assert (await case.sender.read(got, time.time())).status == 404
        assert (await case.sender.read(listed, time.time())).status == 410
        with pytest.raises(ApiError, match="404"):
            await case.sender.read(listed, time.time())

    asyncio.run(scenario())
    sums = {"intended": 4, "sent": 5, "accepted": 2, "throttled": 1, "retried": 1, "failed": 1}
    assert case.end() == sums
    with Reader(tmp_path) as reader:
        assert reader.query("SELECT * FROM actions") == []
