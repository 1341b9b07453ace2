"""What was meant against what was taken, worked out by hand."""

from __future__ import annotations

import pytest

from tests.unit.report.hand import Bundle
from turbokube.measure import verdict
from turbokube.measure.facts import load_limits
from turbokube.measure.offered import Offer, bucket_percentiles, offers
from turbokube.measure.series import Metrics
from turbokube.report import loads


def one(bundle: Bundle, **spec: object) -> Offer:
    bundle.phase("p", 100.0, 200.0, **spec)
    with bundle.read() as reader:
        (found,) = offers(reader, [dict(row) for row in reader.query("SELECT * FROM phases")])
    return found


def second(bundle: Bundle, at: int, intended: int | None, sent: int, accepted: int, **wrong: int) -> Bundle:
    others = (wrong.get(name, 0) for name in ("throttled", "retried", "failed"))
    return bundle.rows("requests", ("p", at, "pods", "create", sent, accepted, *others, 0.1, 0.1, intended))


def test_a_rate_that_is_kept_up_is_achieved_though_its_last_answers_come_a_second_later(bundle: Bundle) -> None:
    for at in range(100, 110):
        second(bundle, at, 10, 10, 9 if at == 109 else 10)
    found = one(second(bundle, 110, 0, 0, 1), rate=10)
    assert (found.offered_rate, found.achieved_rate, found.achieved_share) == (10.0, 10.0, 1.0)
    assert (found.begin, found.end) == (100, 111)


def test_requests_that_are_answered_later_lower_the_achieved_rate(bundle: Bundle) -> None:
    for at in range(100, 120):
        second(bundle, at, 10 if at < 110 else 0, 5, 5)
    found = one(bundle, rate=10)
    assert (found.offered_rate, found.achieved_rate) == (10.0, pytest.approx(100 / 19))
    assert found.achieved_share == pytest.approx(10 / 19)


def test_failed_requests_are_not_achieved(bundle: Bundle) -> None:
    for at in range(100, 110):
        second(bundle, at, 10, 12, 8, throttled=1, retried=1, failed=2)
    found = one(bundle, rate={"poisson": 10})
    assert found.achieved_share == pytest.approx(0.8)
    assert found.counts == {
        "intended": 100, "sent": 120, "accepted": 80, "throttled": 10, "retried": 10, "failed": 20,
    }  # fmt: skip


def test_a_closed_loop_offers_no_rate(bundle: Bundle) -> None:
    found = one(second(bundle, 100, 10, 10, 10), rate=0)
    assert (found.open_loop, found.achieved_share) == (False, None)


def test_a_bundle_of_before_it_was_kept_means_first_sends(bundle: Bundle) -> None:
    assert one(second(bundle, 100, None, 14, 10, throttled=3, retried=1)).counts["intended"] == 10


def test_nothing_taken_is_no_rate(bundle: Bundle) -> None:
    found = one(second(bundle, 100, 10, 10, 0), rate=5)
    assert (found.achieved_rate, found.achieved_share) == (0.0, 0.0)


def test_percentiles_of_buckets_are_upper_edges_of_the_nearest_rank() -> None:
    table = [(0.1, 98), (0.5, 1), (2.0, 1)]
    assert bucket_percentiles(table) == {"p50": 0.1, "p90": 0.1, "p99": 0.5, "max": 2.0}
    assert bucket_percentiles([]) == dict.fromkeys(("p50", "p90", "p99", "max"))


def test_latency_by_resource_and_verb_the_most_frequent_first(bundle: Bundle) -> None:
    for resource, le, count in (("pods", 0.2, 5), ("pods", 0.1, 5), ("services", 3.0, 40)):
        bundle.rows("latencies", ("p", resource, "create", le, count))
    found = one(second(bundle, 100, 50, 50, 50)).latency
    assert [(each.resource, each.n, each.percentiles["p50"]) for each in found] == [
        ("services", 40, 3.0), ("pods", 10, 0.1),
    ]  # fmt: skip


def test_the_generators_lag_is_that_of_the_phases_time(bundle: Bundle) -> None:
    bundle.rows("lag", (99.0, "send", 9.0), (150.0, "send", 0.5), (151.0, "loop", 8.0), (202.0, "send", 9.0))
    assert one(second(bundle, 100, 1, 1, 1)).lag == (1, 0.5, 0.5)


def test_namespaces_are_timed_as_the_original_did(bundle: Bundle) -> None:
    def row(phase: str, kind: str, space: str, name: str, ready: float | None) -> tuple[object, ...]:
        return (phase, kind, space, name, 1.0, 1.0, 1.0, 201, 0, 0, 0, 8, ready, 1)

    for space, begin, ends in (("a", 100.0, (103.0, 104.5)), ("b", 101.0, (103.25,)), ("c", 100.0, (None, 104.0))):
        bundle.rows("objects", row("create", "Namespace", space, space, begin))
        bundle.rows("objects", *(row("create", "Deployment", space, f"d{n}", end) for n, end in enumerate(ends)))
    bundle.rows("objects", row("later", "Job", "a", "j", 900.0))
    with bundle.read() as reader:
        times = loads.namespaces(reader)
    assert times == [("b", 101.0, 103.25), ("a", 100.0, 104.5)]
    assert loads.namespaces_csv(times).decode().splitlines() == [
        "sequence,time (ms),begin,end",
        "b,2250,1970-01-01T00:01:41.000Z,1970-01-01T00:01:43.250Z",
        "a,4500,1970-01-01T00:01:40.000Z,1970-01-01T00:01:44.500Z",
    ]
    assert loads.namespace_times(times)["max"] == 4.5


def test_the_mix_of_requests_and_the_watches_that_were_held_are_told(bundle: Bundle) -> None:
    bundle.phase("a", 100.0, 110.0, kind="create", rate={"poisson": 5}).phase("b", 110.0, 120.0, kind="read", rate=2)
    bundle.phase("c", 120.0, 130.0, kind="read", verb="get", resource_version="0", protobuf=True)
    for phase, accepted in (("a", 7), ("b", 5), ("c", 3)):
        bundle.rows("requests", (phase, 100, "pods", "x", 9, accepted, 0, 0, 0, 0.1, 0.1, 9))
    bundle.rows("watches", ("c", 121, "pods", 4, 4, 0, 0, 10, 900), ("c", 122, "pods", 5, 1, 1, 1, 30, 100))
    with bundle.read() as reader:
        facts = verdict.gather(reader, Metrics(reader), load_limits())
        held = loads.watches(reader, facts)
    assert loads.mix(facts) == "7 writes in JSON, 5 consistent lists in JSON, 3 cached gets in protobuf"
    assert loads.shapes(facts) == "a (create) at poisson 5, b (read) at 2/s, c (read)"
    assert held == [
        {"phase": "c", "resource": "pods", "held": 5, "opened": 5, "resumed": 1, "failed": 1, "events": 40,
         "bytes": 1000, "seconds": 2},
    ]  # fmt: skip


def test_load_generators_are_told_with_how_even_they_were():
    def segment(running: int, started: float, ended: float | None, worker: str) -> dict[str, object]:
        return {"running": running, "started": started, "ended": ended, "worker": worker}

    assert loads.generators([]) == ""
    even = [segment(1200, 10.0, 20.0, "a"), segment(1300, 10.05, 22.5, "b"), segment(1200, 10.0, None, "b")]
    words = "3 in pods on 2 workers: 1,200 to 1,300 pods each, begun within 0.05 s, at work for 10.0 to 12.4 s"
    assert loads.generators(even) == words
    alone = "1 in pods on 1 worker: 5 to 5 pods each, begun within 0.00 s"
    assert loads.generators([segment(5, 1.0, None, "a")]) == alone
