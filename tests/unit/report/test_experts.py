"""What experts look at, worked out by hand."""

from __future__ import annotations

import pytest

from tests.unit.report.hand import Bundle
from turbokube.measure.series import Metrics
from turbokube.report.experts import Experts, processes, scheduled_rates


def bound(bundle: Bundle, uid: str, created: float, scheduled: float | None) -> None:
    bundle.rows("pods", (uid, "ns", uid, "a", "n0", created, created, None, scheduled, None, None, None, 0, 0, None))


def built(bundle: Bundle, seconds: float = 10.0) -> Experts:
    with bundle.read() as reader:
        return Experts(reader, Metrics(reader), seconds).build()


def rows(found: Experts, section: str, table: int = 0) -> list[tuple[str, ...]]:
    return list(found.tables[section][table].rows)


def test_scheduler_throughput_is_of_windows_with_something_to_schedule(bundle: Bundle) -> None:
    for number in range(10):
        bound(bundle, f"a{number}", 100, 101)  # 2/s
    bound(bundle, "slow", 101, 111)  # waits through the second window
    for number in range(5):
        bound(bundle, f"b{number}", 130, 131)  # 1/s, after windows with nothing to do
    with bundle.read() as reader:
        assert scheduled_rates(reader) == [0.0, 0.2, 1.0, 2.0]


def test_a_pod_that_went_before_it_was_bound_waits_no_longer(bundle: Bundle) -> None:
    bundle.rows("pods", ("p", "ns", "p", "a", None, 100, 100, None, None, None, None, 107, 0, 0, None))
    bound(bundle, "late", 120, 121)
    with bundle.read() as reader:
        assert scheduled_rates(reader) == [0.0, 0.2]


def test_without_pods_there_is_no_throughput(bundle: Bundle) -> None:
    assert built(bundle).tables == {}


def test_a_gauge_of_several_series_is_summed_at_each_moment(bundle: Bundle) -> None:
    name = "apiserver_flowcontrol_current_executing_seats"
    bundle.scraped("kube-apiserver-0", 0.0, 5.0, 10.0)
    for schema, values in (("x", {0.0: 3.0, 10.0: 1.0}), ("y", {0.0: 0.0, 5.0: 4.0, 10.0: 5.0})):
        bundle.series("kube-apiserver-0", name, values, flow_schema=schema, priority_level="low")
    for metric, values in (("nominal_limit_seats", {0.0: 20.0}), ("dispatched_requests_total", {0.0: 0.0, 10.0: 50.0})):
        bundle.series("kube-apiserver-0", f"apiserver_flowcontrol_{metric}", values, priority_level="low")
    assert rows(built(bundle), "fairness") == [("low", "50", "7 of 20", "0", "0", "–")]


def test_the_store_against_its_quota(bundle: Bundle) -> None:
    bundle.scraped("etcd-0", 0.0, 10.0)
    bundle.series("etcd-0", "etcd_mvcc_db_total_size_in_bytes", {0.0: 2.0**20, 10.0: 2.0**21})
    bundle.series("etcd-0", "etcd_server_quota_backend_bytes", {0.0: 2.0**23})
    found = built(bundle)
    assert rows(found, "store")[0] == ("file of etcd-0", "2 MiB, 25.0% of its quota")
    assert found.numbers["store_share_max"] == 0.25


def test_what_a_clients_own_limiter_held(bundle: Bundle) -> None:
    name = "kube-controller-manager-0"
    bundle.scraped(name, 0.0, 10.0)
    for code, count in (("200", 90.0), ("429", 10.0)):
        bundle.series(name, "rest_client_requests_total", {0.0: 0.0, 10.0: count}, code=code, method="GET")
    prefix = "rest_client_rate_limiter_duration_seconds"
    bundle.series(name, f"{prefix}_sum", {0.0: 0.0, 10.0: 7.5})
    for edge, count in (("0.1", 10.0), ("1", 100.0), ("+Inf", 100.0)):
        bundle.series(name, f"{prefix}_bucket", {0.0: 0.0, 10.0: count}, le=edge)
    found = built(bundle)
    assert rows(found, "clients") == [(name, "100", "10", "7.5 s", "0.1–1 s")]
    assert (found.numbers["client_limiter_held_s"], found.numbers["client_wait_p99_s"]) == (7.5, 1.0)


def test_the_share_of_garbage_collection_and_its_longest_pause(bundle: Bundle) -> None:
    name = "kube-apiserver-0"
    bundle.scraped(name, 0.0, 10.0)
    bundle.series(name, "process_cpu_seconds_total", {0.0: 0.0, 10.0: 8.0})
    bundle.series(name, "go_cpu_classes_gc_total_cpu_seconds_total", {0.0: 0.0, 10.0: 2.0})
    bundle.series(name, "go_gc_duration_seconds", {0.0: 0.01, 10.0: 0.004}, quantile="1")
    bundle.series(name, "go_sched_gomaxprocs_threads", {0.0: 2.0})
    with bundle.read() as reader:
        assert processes(Metrics(reader)) == {
            name: {"gc_share": pytest.approx(0.25), "gc_pause_s": 0.01, "gomaxprocs": 2.0}
        }
